import java.io.FileInputStream;
import java.net.InetAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.X509Certificate;
import java.util.Collections;
import java.util.List;
import java.util.Scanner;
import java.util.concurrent.CompletableFuture;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

/**
 * Opens PKCS#12 keystores as Java applications do. The password is in a file.
 *
 * <pre>
 * Keystores list FILE PASSWORD-FILE               prints the entries: alias, kind, length of a key's chain
 * Keystores talk KEYSTORE TRUSTSTORE PASSWORD-FILE
 *     For each line of standard input, loads both again, and connects to itself with mutual TLS. Prints the serial number
 *     (hexadecimal) of the server's certificate as the client sees it.
 * </pre>
 */
public class Keystores {
    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "list" -> list(args[1], args[2]);
            case "talk" -> {
                Scanner lines = new Scanner(System.in);
                while (lines.hasNextLine()) {
                    lines.nextLine();
                    System.out.println(talk(context(args[1], args[2], args[3])));
                }
            }
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    private static void list(String file, String passwordFile) throws Exception {
        char[] password = password(passwordFile);
        KeyStore store = open(file, password);
        List<String> aliases = Collections.list(store.aliases());
        Collections.sort(aliases);
        for (String alias : aliases) {
            // Decrypts the key.
            String entry = store.isKeyEntry(alias)
                    ? "key " + store.getKey(alias, password).getFormat() + " " + store.getCertificateChain(alias).length
                    : "trusted";
            System.out.println(alias + " " + entry);
        }
    }

    private static String talk(SSLContext context) throws Exception {
        InetAddress loopback = InetAddress.getByName("127.0.0.1");
        try (var listener = (SSLServerSocket) context.getServerSocketFactory().createServerSocket(0, 1, loopback)) {
            listener.setNeedClientAuth(true);
            var served = CompletableFuture.runAsync(() -> greet(listener));
            var sockets = context.getSocketFactory();
            try (var socket = (SSLSocket) sockets.createSocket(loopback, listener.getLocalPort())) {
                var parameters = socket.getSSLParameters();
                parameters.setEndpointIdentificationAlgorithm("HTTPS");
                socket.setSSLParameters(parameters);
                socket.getInputStream().read();
                served.get();
                var leaf = (X509Certificate) socket.getSession().getPeerCertificates()[0];
                return leaf.getSerialNumber().toString(16);
            }
        }
    }

    private static void greet(SSLServerSocket listener) {
        try (var socket = (SSLSocket) listener.accept()) {
            socket.getSession().getPeerCertificates();
            socket.getOutputStream().write('!');
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    private static SSLContext context(String keystore, String truststore, String passwordFile) throws Exception {
        char[] password = password(passwordFile);
        var keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(open(keystore, password), password);
        var anchors = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        anchors.init(open(truststore, password));
        var context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), anchors.getTrustManagers(), null);
        return context;
    }

    private static KeyStore open(String file, char[] password) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        try (var in = new FileInputStream(file)) {
            store.load(in, password);
        }
        return store;
    }

    private static char[] password(String file) throws Exception {
        return Files.readString(Path.of(file)).toCharArray();
    }
}
