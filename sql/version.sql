-- Last of all: the installation is complete.
update amqp.installation
   set version = 5, -- the same number as in schema.sql and sql.go
       upgraded_at = case when version = 0 then upgraded_at else now() end
 where version <> 5;
