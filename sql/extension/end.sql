-- What users have put into the tables belongs into a dump. amqp.installation does not: CREATE EXTENSION writes it anew,
-- and the slot and the publication that it names are not in a dump either.
do $$
declare
  name regclass;
begin
  foreach name in array array['amqp.broker', 'amqp.dead_letter', 'amqp.route', 'amqp.snapshot', 'amqp.publish_limit',
    'amqp.broker_broker_id_seq', 'amqp.dead_letter_id_seq', 'amqp.route_route_id_seq', 'amqp.snapshot_snapshot_id_seq'] loop
    perform pg_extension_config_dump(name, ''); -- each a statement of its own: all change one row
  end loop;
end
$$;
