import io.spiffe.svid.x509svid.X509SvidValidator;
import io.spiffe.workloadapi.DefaultX509Source;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;

/**
 * Follows the X.509-SVID of a volume's socket. For each line of input it prints the serial number of the current one (hexadecimal)
 * and its SPIFFE ID, after it has verified the one against the current trust bundle; or an error.
 *
 * <pre>java WorkloadApi unix:/spiffe/socket</pre>
 */
public final class WorkloadApi {
    public static void main(String[] args) throws Exception {
        var options = DefaultX509Source.X509SourceOptions.builder()
                .spiffeSocketPath(args[0])
                .initTimeout(Duration.ofSeconds(30))
                .build();
        try (var source = DefaultX509Source.newSource(options)) {
            var lines = new BufferedReader(new InputStreamReader(System.in));
            while (lines.readLine() != null) {
                System.out.println(current(source));
            }
        }
    }

    private static String current(DefaultX509Source source) {
        try {
            var svid = source.getX509Svid();
            X509SvidValidator.verifyChain(svid.getChain(), source);
            return svid.getLeaf().getSerialNumber().toString(16) + " " + svid.getSpiffeId();
        } catch (Exception error) {
            return "error: " + error;
        }
    }
}
