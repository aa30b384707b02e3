"""Stores an order and tells others about it, or does neither.

usage: place_order.py ORDER_ID ITEM PIECES
"""
import os
import sys

import psycopg
from psycopg.types.json import Jsonb


def place(conn, order, traceparent):
    with conn.transaction():  # an exception rolls back, and the message is never sent
        conn.execute("insert into orders (id, item, pieces) values (%(id)s, %(item)s, %(pieces)s)", order)
        conn.execute(
            "select amqp.publish(1, 'shop', 'order.placed', %s, headers => %s, message_id => %s)",
            [Jsonb(order), Jsonb({"traceparent": traceparent}), "order-placed-" + order["id"]],
        )
        conn.execute("update stock set pieces = pieces - %(pieces)s where item = %(item)s", order)


if __name__ == "__main__":
    order_id, item, pieces = sys.argv[1:]
    # With autocommit a transaction is what `with conn.transaction()` says, and nothing else.
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as conn:
        place(conn, {"id": order_id, "item": item, "pieces": int(pieces)}, os.environ.get("TRACEPARENT"))
