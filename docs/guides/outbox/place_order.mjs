// Stores an order and tells others about it, or does neither.
//
//   node place_order.mjs ORDER_ID ITEM PIECES
import pg from 'pg';

async function place(client, order, traceparent) {
  await client.query('begin');
  try {
    await client.query('insert into orders (id, item, pieces) values ($1, $2, $3)', [order.id, order.item, order.pieces]);
    await client.query(
      `select amqp.publish(1, 'shop', 'order.placed', $1::jsonb, headers => $2::jsonb, message_id => $3)`,
      [order, { traceparent }, `order-placed-${order.id}`],
    );
    await client.query('update stock set pieces = pieces - $1 where item = $2', [order.pieces, order.item]);
    await client.query('commit');
  } catch (error) {
    await client.query('rollback'); // the message is never sent
    throw error;
  }
}

const [id, item, pieces] = process.argv.slice(2);
const client = new pg.Client({ connectionString: process.env.DATABASE_URL });
await client.connect();
try {
  await place(client, { id, item, pieces: Number(pieces) }, process.env.TRACEPARENT);
} finally {
  await client.end();
}
