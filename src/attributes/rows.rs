//! The table of attributes.

use super::table::Default::{Derived, Value};
use super::table::{Default, Options, Presence, Row, Topic, Variables};
use crate::model::{KeyAlgorithm, SignerKind};

const FILE_RULE: &str = "a plain file name of at most 255 bytes: no slash, no leading `..`, no white space at its ends, \
     different from the other file names";
const LIST_RULE: &str = "a list of texts of at most 64 characters, none of them a control character";
const ADDRESS_RULE: &str = "a list of texts of at most 128 characters, none of them a control character";
const SOURCES_RULE: &str = "a list of at most 8 of: `signer`, what the CA of the certificate's signer is; a name that the operator lists \
     (`--trust-source`); `configmap:NAME` or `configmap:NAME/KEY`, a ConfigMap in the pod's namespace whose name the operator allows \
     (`--trust-configmap-names`); `clustertrustbundle:NAME`; `clustertrustbundle:SIGNER` or `clustertrustbundle:SIGNER?LABEL=VALUE&LABEL=VALUE`, \
     the ClusterTrustBundles of a signer such as `example.org/mesh`";
const DURATION_RULE: &str = "a Go duration above zero, such as `24h` or `1h30m`";
const SWITCH_RULE: &str = "`true` or `false`";

/// The options of an attribute without default and without special rules.
const PLAIN: Options = Options {
    certlet_only: false,
    csi_driver_spiffe: Presence::Never,
    signer: None,
    part_of_subject: false,
    variables: Variables::Never,
    secret: false,
    cert_manager: Default::None,
    certlet: Default::None,
};
const TEMPLATED: Options = Options { variables: Variables::Always, ..PLAIN };
const SUBJECT: Options = Options { part_of_subject: true, ..TEMPLATED };

const fn default(default: Default) -> Options {
    Options { cert_manager: default, certlet: default, ..PLAIN }
}

/// An attribute that an operator can allow to volumes of csi-driver-spiffe, whose users ask for it.
const fn optional(options: Options) -> Options {
    Options { csi_driver_spiffe: Presence::IfAllowed, ..options }
}

const fn issuer(of_issuer: Default) -> Options {
    Options { signer: Some(SignerKind::CertManager), ..default(of_issuer) }
}

const fn private_ca(of_private_ca: Default) -> Options {
    Options { signer: Some(SignerKind::AcmPca), certlet_only: true, ..default(of_private_ca) }
}

/// Makes [`Key`] and [`TABLE`] from one list. An entry is `Key: name, purpose, rule => options`.
macro_rules! attributes {
    ($($topic:ident { $($key:ident: $name:literal, $about:literal, $rule:expr => $options:expr;)+ })+) => {
        /// Every attribute, in the order of [`TABLE`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(clippy::enum_variant_names, reason = "each variant is the attribute it is named after")]
        pub(super) enum Key { $($($key,)+)+ }

        /// Every attribute, in the order of the documentation.
        pub(super) static TABLE: &[Row] = &[$($(
            Row {
                key: Key::$key,
                topic: Topic::$topic,
                name: $name,
                about: $about,
                rule: $rule,
                options: $options,
            },
        )+)+];
    };
}

attributes! {
    Signer {
        Class: "class",
            "The operator's class of identity, which gives the volume its other attributes and says which of them a pod may still set: \
             [Classes](classes.md).",
            "the name of a class that the operator lets the pod use (`--classes`)"
            => Options { certlet_only: true, ..default(Derived("the operator's default class for a volume without attributes, else none")) };
        Signer: "signer", "Who signs the certificate.", "`cert-manager`, `acm-pca` or `local`"
            => Options { certlet_only: true, ..default(Value("cert-manager")) };
        IssuerName: "issuer-name", "The cert-manager issuer that signs.",
            "the name of an issuer, with the signer `cert-manager` only"
            => issuer(Derived("the operator's issuer (`--default-issuer-name`) for a volume that names nothing of an issuer, else required with the signer `cert-manager`"));
        IssuerKind: "issuer-kind", "The issuer's kind.",
            "a kind such as `Issuer` or `ClusterIssuer`, with the signer `cert-manager` only" => issuer(Value("Issuer"));
        IssuerGroup: "issuer-group", "The API group of the issuer. It may be that of an external issuer.",
            "an API group such as `cert-manager.io`, with the signer `cert-manager` only"
            => issuer(Value("cert-manager.io"));
    }
    Names {
        Spiffe: "spiffe",
            "Whether the certificate is the pod's X.509-SVID: no subject, the pod's SPIFFE ID as its only name, the usages `digital \
             signature`, `key encipherment`, `server auth` and `client auth`, and the operator's `--certificate-request-duration` (`1h`) \
             unless `duration` is set. The \
             operator decides how IDs are made. It excludes the other names, `is-ca` and `key-usages`.",
            "`true` or `false`; `true` only if the driver has a `--trust-domain`"
            => Options { certlet_only: true, ..default(Value("false")) };
        CommonName: "common-name", "The subject's common name.",
            "at most 64 characters, none of them a control character" => SUBJECT;
        DnsNames: "dns-names", "DNS names of the certificate.",
            "a list of host names of at most 253 characters, labels of at most 63 letters, digits, `-` and `_`, the first \
             label may be `*`; no IP addresses" => optional(TEMPLATED);
        Services: "services",
            "Services of the pod's namespace by whose names the pod is reached. Each `NAME` gives the DNS names `NAME`, `NAME.NAMESPACE`, \
             `NAME.NAMESPACE.svc` and `NAME.NAMESPACE.svc.CLUSTER-DOMAIN` (`--cluster-domain`), besides those of `dns-names`.",
            "a list of at most 32 names of Services, without their namespace"
            => Options { certlet_only: true, ..TEMPLATED };
        IpSans: "ip-sans", "IP addresses of the certificate. `${POD_IP}` is the pod's own.",
            "a list of IPv4 or IPv6 addresses" => Options { variables: Variables::Certlet, ..PLAIN };
        UriSans: "uri-sans", "URIs of the certificate, such as a SPIFFE ID.",
            "a list of absolute URIs (RFC 3986) of at most 2,048 bytes, without `.` and `..` in the path and without an empty \
             fragment; or one SPIFFE ID such as `spiffe://example.org/ns/shop`, without a path if and only if `is-ca` is `true`" => TEMPLATED;
        EmailSans: "email-sans", "E-mail addresses of the certificate.",
            "a list of addresses such as `web@example.org`, of ASCII characters"
            => Options { certlet_only: true, ..TEMPLATED };
        LiteralSubject: "literal-subject",
            "The whole subject, its parts in the order you want. It excludes the other subject attributes.",
            "a distinguished name (RFC 4514) such as `CN=web,OU=Shop,O=Example` of `CN`, `C`, `L`, `ST`, `STREET`, `O`, \
             `OU`, `DC`, `UID`, `SERIALNUMBER` and dotted object identifiers, each value within the limits of its own attribute" => TEMPLATED;
        Organizations: "organizations", "The subject's organizations.", LIST_RULE => SUBJECT;
        OrganizationalUnits: "organizationalunits", "The subject's organizational units.", LIST_RULE => SUBJECT;
        Countries: "countries", "The subject's countries.",
            "a list of country codes of two letters, such as `DE`" => SUBJECT;
        Provinces: "provinces", "The subject's states or provinces.", ADDRESS_RULE => SUBJECT;
        Localities: "localities", "The subject's localities.", ADDRESS_RULE => SUBJECT;
        StreetAddresses: "streetaddresses", "The subject's street addresses.", ADDRESS_RULE => SUBJECT;
        PostalCodes: "postalcodes", "The subject's postal codes.",
            "a list of texts of at most 40 characters, none of them a control character" => SUBJECT;
        SerialNumber: "serialnumber", "The subject's serial number (not the certificate's).",
            "at most 64 letters, digits, spaces and `'()+,-./:=?`" => Options { variables: Variables::Certlet, ..SUBJECT };
    }
    Certificate {
        Duration: "duration", "The lifetime to request; the signer may give less.", DURATION_RULE
            => optional(Options { cert_manager: Value("2160h"), certlet: Value("24h"), ..PLAIN });
        RenewBefore: "renew-before",
            "How long before its expiry the certificate is renewed. A value of the lifetime or more is ignored. Every \
             certificate is used for at least a minute (`--min-renewal-interval`) or two thirds of its lifetime.",
            DURATION_RULE => optional(default(Derived("a third of the lifetime")));
        IsCa: "is-ca", "Whether to request a CA certificate.", SWITCH_RULE => default(Value("false"));
        KeyUsages: "key-usages", "Key usages and extended key usages.",
            "a list of `digital signature` (or `signing`), `content commitment`, `key encipherment`, `key agreement`, \
             `data encipherment`, `cert sign`, `crl sign`, `encipher only`, `decipher only`, `any`, `server auth`, \
             `client auth`, `code signing`, `email protection` (or `s/mime`), `ipsec end system`, `ipsec tunnel`, \
             `ipsec user`, `timestamping`, `ocsp signing`, `microsoft sgc`, `netscape sgc`; with a SPIFFE ID and without `is-ca`, \
             `digital signature` is one of them, and `cert sign` and `crl sign` are not"
            => default(Value("digital signature,key encipherment"));
    }
    Key {
        KeyAlgorithm: "key-algorithm", "The private key's algorithm.",
            "`RSA`, `ECDSA` or `Ed25519`, in upper or lower case"
            => Options { cert_manager: Value("RSA"), certlet: Value("ECDSA"), ..PLAIN };
        KeySize: "key-size", "The private key's size in bits.",
            KeyAlgorithm::SIZES => default(Derived("`2048` for RSA, `256` for ECDSA"));
        KeyEncoding: "key-encoding", "The encoding of the private key's file.",
            "`PKCS8`, or `PKCS1` for RSA, in upper or lower case"
            => Options { cert_manager: Derived("`PKCS1` for RSA, else `PKCS8`"), certlet: Derived("`PKCS8`"), ..PLAIN };
        ReusePrivateKey: "reuse-private-key", "Whether a renewal keeps the private key instead of making a new one.",
            SWITCH_RULE => default(Value("false"));
    }
    Files {
        Layout: "layout",
            "The files with the key, the certificate and the trust anchors: `default` has the three below, `istio` has \
             `cert-chain.pem`, `key.pem` and `root-cert.pem`, `spiffe` and `envoy` are described in [Layouts](#layouts). All but \
             `default` exclude `certificate-file`, `privatekey-file` and `ca-file`.",
            "`default`, `istio`, `envoy`, or for a certificate with a SPIFFE ID `spiffe`"
            => Options { certlet_only: true, ..default(Value("default")) };
        CertificateFile: "certificate-file", "The certificate, and the intermediates after it.", FILE_RULE
            => default(Value("tls.crt"));
        PrivateKeyFile: "privatekey-file", "The private key.", FILE_RULE => default(Value("tls.key"));
        CaFile: "ca-file", "The trust anchors.", FILE_RULE => default(Value("ca.crt"));
        CaSource: "ca-source",
            "Where the trust anchors come from; several sources are joined. Changes reach a running pod without a new certificate.",
            SOURCES_RULE
            => Options { certlet_only: true, ..default(Derived("the operator's `--ca-source`, or without it `signer`")) };
        CombinedFile: "combined-file",
            "One more file that holds the private key, then the certificate and intermediates.", FILE_RULE
            => Options { certlet_only: true, ..PLAIN };
        Pkcs12Enable: "pkcs12-enable", "Whether to write a PKCS#12 keystore as well.", SWITCH_RULE
            => default(Value("false"));
        Pkcs12Filename: "pkcs12-filename", "The keystore. Only with `pkcs12-enable`.", FILE_RULE
            => default(Value("keystore.p12"));
        Pkcs12Password: "pkcs12-password", "The keystore's password. Only with `pkcs12-enable`.",
            "a password that is not empty, of printable ASCII characters" => Options { secret: true, ..default(Derived("required when `pkcs12-enable` is `true`, unless the password is in a Secret or a file")) };
        Pkcs12PasswordKey: "pkcs12-password-key",
            "The key of the keystore's password in the Secret of the volume's `nodePublishSecretRef`, for a password that is not in \
             the pod's manifest. Only without `pkcs12-password`. A running volume keeps the password of its first publish.",
            "a key of a Secret: letters, digits, `-`, `_` and `.`" => Options { certlet_only: true, ..default(Value("password")) };
        Pkcs12PasswordFile: "pkcs12-password-file",
            "A file with a random password of the keystore, made once for the volume and not changed by renewals. It protects nothing \
             that the key file does not: who can read one can read the other.", FILE_RULE
            => Options { certlet_only: true, ..PLAIN };
        Pkcs12Alias: "pkcs12-alias", "The alias of the key in the keystore. Only with `pkcs12-enable`.",
            "a text of 1 to 64 characters without control characters"
            => Options { certlet_only: true, ..default(Value("certificate")) };
        Pkcs12Profile: "pkcs12-profile",
            "The keystore's algorithms: `legacy` for Java 8 before 8u301 and others that cannot read the modern ones. Only with \
             `pkcs12-enable` or `truststore-file`.",
            "`modern` or `legacy`" => Options { certlet_only: true, ..default(Value("modern")) };
        TruststoreFile: "truststore-file",
            "One more PKCS#12 keystore, with the trust anchors alone. Its password is that of the keystore, or `changeit` without \
             one.", FILE_RULE => Options { certlet_only: true, ..PLAIN };
        CrlFile: "crl-file",
            "One more PEM file, with the CRLs of the CAs of the certificate and of the trust anchors. The volume's socket and the layout \
             `envoy` hand them over too; with `files: \"false\"` only the socket does. The operator says which CRLs there are: \
             [Revocation lists](trust.md#revocation-lists).", FILE_RULE => Options { certlet_only: true, ..PLAIN };
        SocketFile: "socket-file",
            "A socket in the volume that serves the SPIFFE Workload API and Envoy's SDS.", FILE_RULE
            => Options { certlet_only: true, ..PLAIN };
        Files: "files",
            "Whether the volume has files. With `false` it is handed over by its socket only, and the key is in no file that a pod \
             can see.", "`true`, or `false` together with `socket-file`"
            => Options { certlet_only: true, ..default(Value("true")) };
        FederatedBundles: "federated-bundles",
            "Other trust domains whose trust bundles the volume has too, apart from its own: on its socket, and each in a file \
             `TRUST-DOMAIN.spiffe-trust-bundle.x509.pem`. With the layout `envoy`, `ALL.yaml` has all of them.",
            "trust domains of the operator's `--federated-bundle` without the certificate's own, as a list, or `*` for all of them; only \
             for a certificate with a SPIFFE ID" => Options { certlet_only: true, ..PLAIN };
        Owner: "owner",
            "The user that owns the private key's files, and may read them without any group: the `runAsUser` of the container.",
            "a user id from 0 to 4294967294" => Options { certlet_only: true, ..PLAIN };
        FsGroup: "fs-group", "The group that may read the private key. Without it, the pod's `fsGroup`.",
            "a group id from 0 to 4294967294; with `spiffe.csi.cert-manager.io/` from 1 to 4294967295"
            => Options { csi_driver_spiffe: Presence::Always, ..PLAIN };
    }
    PrivateCa {
        CertificateAuthorityArn: "certificate-authority-arn", "The private CA that signs.",
            "`arn:aws:acm-pca:REGION:ACCOUNT:certificate-authority/UUID` (or another partition, such as `aws-cn` and \
             `aws-us-gov`), with the signer `acm-pca` only"
            => private_ca(Derived("required with the signer `acm-pca`"));
        SigningAlgorithm: "signing-algorithm", "The algorithm the CA signs with; it must fit the CA's key.",
            "`SHA256WITHECDSA`, `SHA384WITHECDSA`, `SHA512WITHECDSA`, `SHA256WITHRSA`, `SHA384WITHRSA` or \
             `SHA512WITHRSA`, with the signer `acm-pca` only" => private_ca(Derived("the signer's choice"));
        TemplateArn: "template-arn", "The certificate template.",
            "`arn:aws:acm-pca:::template/NAME/V1` (or another partition), with the signer `acm-pca` only"
            => private_ca(Derived("the signer's choice"));
        RoleArn: "role-arn", "The IAM role to sign as.",
            "`arn:aws:iam::ACCOUNT:role/NAME` (or another partition), of at most 2,048 bytes, with the signer `acm-pca` only" => private_ca(Default::None);
        UsePodIdentity: "use-pod-identity",
            "Whether to sign as the IAM role that EKS Pod Identity associates with the pod's service account. It excludes \
             `role-arn`.", "`true` or `false`, with the signer `acm-pca` only" => private_ca(Value("false"));
    }
}
