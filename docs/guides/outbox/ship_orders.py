"""Takes messages about orders and makes one shipment of each, however often a message comes."""
import os

import pika
import psycopg


def ship(conn, message_id, body):
    with conn.transaction():
        first = conn.execute("insert into handled (message_id) values (%s) on conflict do nothing", [message_id])
        if first.rowcount == 1:  # it has not come before
            conn.execute("insert into shipments (order_id) select (%s::jsonb ->> 'id')::uuid", [body.decode()])


if __name__ == "__main__":
    broker = pika.BlockingConnection(pika.URLParameters(os.environ["BROKER_URL"]))
    channel = broker.channel()
    channel.basic_qos(prefetch_count=10)
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as conn:
        for delivery, properties, body in channel.consume("shipping"):
            ship(conn, properties.message_id, body)  # an exception ends it: without an ack the message comes again
            channel.basic_ack(delivery.delivery_tag)  # after the commit
