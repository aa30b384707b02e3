// Takes messages about orders and makes one shipment of each, however often a message comes.
import amqp from 'amqplib';
import pg from 'pg';

async function ship(client, messageId, body) {
  await client.query('begin');
  try {
    const first = await client.query('insert into handled (message_id) values ($1) on conflict do nothing', [messageId]);
    if (first.rowCount === 1) { // it has not come before
      await client.query(`insert into shipments (order_id) select ($1::jsonb ->> 'id')::uuid`, [body]);
    }
    await client.query('commit');
  } catch (error) {
    await client.query('rollback');
    throw error;
  }
}

const client = new pg.Client({ connectionString: process.env.DATABASE_URL });
await client.connect();
const broker = await amqp.connect(process.env.BROKER_URL);
const channel = await broker.createChannel();
await channel.prefetch(1); // one at a time: the client has one transaction
await channel.consume('shipping', async (message) => {
  await ship(client, message.properties.messageId, message.content.toString()); // an error ends it: without an ack it comes again
  channel.ack(message); // after the commit
});
