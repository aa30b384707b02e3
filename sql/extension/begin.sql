\echo Use "CREATE EXTENSION amqp" to load this file. \quit
