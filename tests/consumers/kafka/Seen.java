import java.security.cert.X509Certificate;
import org.apache.kafka.common.security.auth.AuthenticationContext;
import org.apache.kafka.common.security.auth.KafkaPrincipal;
import org.apache.kafka.common.security.auth.KafkaPrincipalBuilder;
import org.apache.kafka.common.security.auth.KafkaPrincipalSerde;
import org.apache.kafka.common.security.auth.SslAuthenticationContext;
import org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder;

/** In a broker: prints the serial number (hexadecimal) of the certificate of each client that connects. */
public class Seen implements KafkaPrincipalBuilder, KafkaPrincipalSerde {
    private final KafkaPrincipalSerde serde = new DefaultKafkaPrincipalBuilder(null, null);

    @Override
    public KafkaPrincipal build(AuthenticationContext context) {
        if (!(context instanceof SslAuthenticationContext tls)) {
            return KafkaPrincipal.ANONYMOUS;
        }
        try {
            var leaf = (X509Certificate) tls.session().getPeerCertificates()[0];
            System.out.println("client " + leaf.getSerialNumber().toString(16));
            return new KafkaPrincipal(KafkaPrincipal.USER_TYPE, leaf.getSubjectX500Principal().getName());
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    @Override
    public byte[] serialize(KafkaPrincipal principal) {
        return serde.serialize(principal);
    }

    @Override
    public KafkaPrincipal deserialize(byte[] bytes) {
        return serde.deserialize(bytes);
    }
}
