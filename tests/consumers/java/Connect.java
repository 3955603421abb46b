import java.math.BigInteger;
import java.sql.DriverManager;
import java.util.Scanner;

/**
 * Connects to PostgreSQL through its JDBC driver, once for each line of standard input. Prints the serial number (hexadecimal)
 * of the client certificate that the server saw, or the error.
 */
public class Connect {
    private static final String SERIAL = "select client_serial from pg_stat_ssl where pid = pg_backend_pid()";

    public static void main(String[] args) {
        Scanner lines = new Scanner(System.in);
        while (lines.hasNextLine()) {
            lines.nextLine();
            System.out.println(connect(args[0]).replace('\n', ' '));
        }
    }

    private static String connect(String url) {
        try (var connection = DriverManager.getConnection(url);
                var statement = connection.createStatement();
                var rows = statement.executeQuery(SERIAL)) {
            rows.next();
            return new BigInteger(rows.getString(1)).toString(16);
        } catch (Exception error) {
            return "error: " + error.getMessage();
        }
    }
}
