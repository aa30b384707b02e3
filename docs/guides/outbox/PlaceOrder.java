import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.util.UUID;

/** Stores an order and tells others about it, or does neither. Arguments: ORDER_ID ITEM PIECES. */
class PlaceOrder {
    static void place(Connection conn, UUID id, String item, int pieces, String traceparent) throws SQLException {
        conn.setAutoCommit(false);
        try (var insert = conn.prepareStatement("insert into orders (id, item, pieces) values (?, ?, ?)");
             var publish = conn.prepareStatement("""
                 select amqp.publish(1, 'shop', 'order.placed', jsonb_build_object('id', ?, 'item', ?, 'pieces', ?),
                                     headers => jsonb_build_object('traceparent', ?), message_id => ?)""");
             var take = conn.prepareStatement("update stock set pieces = pieces - ? where item = ?")) {
            insert.setObject(1, id);
            insert.setString(2, item);
            insert.setInt(3, pieces);
            insert.executeUpdate();

            publish.setObject(1, id);
            publish.setString(2, item);
            publish.setInt(3, pieces);
            publish.setString(4, traceparent);
            publish.setString(5, "order-placed-" + id);
            publish.execute();

            take.setInt(1, pieces);
            take.setString(2, item);
            take.executeUpdate();
            conn.commit();
        } catch (SQLException e) {
            conn.rollback(); // the message is never sent
            throw e;
        }
    }

    public static void main(String[] args) throws SQLException {
        try (var conn = DriverManager.getConnection(System.getenv("JDBC_URL"))) {
            place(conn, UUID.fromString(args[0]), args[1], Integer.parseInt(args[2]), System.getenv("TRACEPARENT"));
        }
    }
}
