//! Volumes that must be refused, each with the attribute that the message must name.

/// One volume that must be refused.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// Unique, and readable in a list of failures.
    pub name: String,
    /// The attribute at fault, with its prefix: the message begins with it when it is the only fault.
    pub attribute: String,
    /// The whole volume context, the kubelet's keys included.
    pub attributes: Vec<(String, String)>,
}

const CERTLET: &str = "csi.certlet.io";
const CERT_MANAGER: &str = "csi.cert-manager.io";
const KUBELET: &str = "csi.storage.k8s.io";
const ROLE_ARN: &str = "arn:aws:iam::123456789012:role/shop-web";
const CA_ARN: &str =
    "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/11111111-2222-3333-4444-555555555555";

/// Texts that are not lists of host names.
#[rustfmt::skip]
const DNS_NAMES: &[&str] = &[
    "a b", "a,,b", "a,", ",a", ",", "-a", "a-", "a..b", ".a", "a.", "*", "a.*.b", "*a.b",
    "b\u{fc}cher.example", "http://a", "a:443", "a\nb", "\"a", "a\"b\"", "\"a\"b", "${POD_IP}",
    "${pod_name}", "$HOSTNAME.a", "${POD_NAME", " ", "a@b",
];

/// Texts that are not lists of absolute URIs.
#[rustfmt::skip]
const URIS: &[&str] = &[
    "/ns/shop", "ns/shop", "spiffe:", "spiffe://", "a b:c", "https://a b", "https://a,", "https://\u{fc}",
    "1a:b", "https://%zz", "https://a\nb", "spiffe://td/${NODE}", "https://\"a\"", "https://<a>",
    "${POD_NAME}",
];

/// Texts that are not lists of IP addresses.
#[rustfmt::skip]
const ADDRESSES: &[&str] = &[
    "10.0.0.0/8", "10.0.0.256", "010.0.0.1", "localhost", "10.0.0.1:443", "fe80::1%eth0", "[::1]",
    "10.0.0.1,", "10.0.0.1;10.0.0.2", "10.0.0.1 10.0.0.2", "${POD_IP}", "1::2::3",
];

/// Texts that are not distinguished names.
#[rustfmt::skip]
const SUBJECTS: &[&str] = &[
    "example.com", "CN=", "CN=a,", "CN=a,,O=b", "XX=a", "=a", "CN=a;O=b", "CN=\"a\"", "/CN=a/O=b", "CN=a\\",
    "CN=#zz", "CN=\\FF", "C=\u{d6}", "CN=a+CN=a", "CN=${HOST_NAME}", "1.2.x=a",
];

/// Texts that are not durations above zero.
#[rustfmt::skip]
const DURATIONS: &[&str] = &[
    "0", "0s", "-1h", "+0h0m", "1d", "1", "h", "1h30", " 1h", "1h ", "1 h", "1,5h", "1H", "-", ".", "1.h.",
    "2562048h", "9223372036854775808ns", "99999999999999999999h", "forever", "P1D", "${POD_NAME}",
];

/// All rejected volumes, with unique names.
pub fn rejected_inputs() -> Vec<Rejected> {
    let mut inputs = Inputs(Vec::new());
    single_values(&mut inputs, CERTLET);
    lists(&mut inputs, CERTLET);
    subjects(&mut inputs, CERTLET);
    unknown_names(&mut inputs, CERTLET);
    for group in [CERTLET, CERT_MANAGER] {
        files(&mut inputs, group);
        keys(&mut inputs, group);
        inputs.add(group, "issuer-name", "missing", &[("duration", "1h")]);
    }
    refused_by_the_peer(&mut inputs);
    signers(&mut inputs);
    foreign_names(&mut inputs);
    kubelet(&mut inputs);
    spiffe(&mut inputs);
    trust_sources(&mut inputs);
    for value in ["mesh", "a b", "${POD_NAME}"] {
        inputs.value(CERTLET, "class", value);
    }
    inputs.0
}

struct Inputs(Vec<Rejected>);

impl Inputs {
    /// Adds a volume of one prefix with exactly these attributes and the kubelet's.
    fn add(&mut self, group: &str, faulty: &str, why: &str, attributes: &[(&str, &str)]) {
        let own = attributes.iter().map(|(name, value)| (format!("{group}/{name}"), (*value).to_owned()));
        self.push(format!("{group}/{faulty}"), why, kubelet_keys().chain(own).collect());
    }

    /// Adds a volume that is valid except for one value.
    fn value(&mut self, group: &str, name: &str, value: &str) {
        self.beside(group, name, value, &[]);
    }

    /// Adds a volume with other attributes that is valid except for one value.
    fn beside(&mut self, group: &str, name: &str, value: &str, others: &[(&str, &str)]) {
        let mut attributes = vec![("issuer-name", "ca")];
        attributes.extend(others.iter().filter(|(other, _)| *other != "signer"));
        if others.iter().any(|(other, _)| *other == "signer") {
            attributes.clear();
            attributes.extend(others);
        }
        attributes.retain(|(other, _)| *other != name);
        attributes.push((name, value));
        let others: Vec<_> = others.iter().map(|(other, value)| format!("{other} {value}")).collect();
        let why = format!("{} {}", value.chars().take(60).collect::<String>(), others.join(" "));
        self.add(group, name, &why, &attributes);
    }

    fn push(&mut self, attribute: String, why: &str, attributes: Vec<(String, String)>) {
        let name =
            format!("{:03} {attribute} {}", self.0.len() + 1, why.escape_debug()).trim_end().to_owned();
        self.0.push(Rejected { name, attribute, attributes });
    }
}

fn kubelet_keys() -> impl Iterator<Item = (String, String)> {
    [
        ("pod.name", "cart-0"),
        ("pod.namespace", "shop"),
        ("pod.uid", "7b3f7a0e-5c0e-4f0e-9a54-0d0f6f9f8c11"),
        ("serviceAccount.name", "cart"),
        ("ephemeral", "true"),
    ]
    .into_iter()
    .map(|(name, value)| (format!("{KUBELET}/{name}"), value.to_owned()))
}

fn single_values(inputs: &mut Inputs, group: &str) {
    for name in ["duration", "renew-before"] {
        for value in DURATIONS {
            inputs.value(group, name, value);
        }
    }
    for name in ["is-ca", "reuse-private-key", "pkcs12-enable"] {
        for value in ["yes", "1", "True", "TRUE", " true", "true ", "false,"] {
            inputs.value(group, name, value);
        }
    }
    for value in ["-1", "1.5", "root", "4294967295", "4294967296", "0x10", " 5", "${POD_UID}"] {
        inputs.value(group, "fs-group", value);
    }
    for value in ["-1", "1.5", "root", "4294967295", "4294967296", " 5"] {
        inputs.value(group, "owner", value);
    }
    for value in
        ["a.b", "A", "a_b", "*", "-a", "a,,b", "a b", "web.shop.svc", "${POD_IP}", "${X}", "10.0.0.1"]
    {
        inputs.value(group, "services", value);
    }
    for value in ["My_Issuer", "Issuer", "a b", "a/b", "-a", "a.", "${POD_NAME}", "a\n"] {
        inputs.value(group, "issuer-name", value);
    }
    for value in ["Cluster Issuer", "cluster-issuer", "1Issuer", "a/b"] {
        inputs.value(group, "issuer-kind", value);
    }
    for value in ["cert manager", "cert-manager.io/v1", "Cert-Manager.io", "a..b"] {
        inputs.value(group, "issuer-group", value);
    }
    for value in [&"a".repeat(65), "${POD_NAME}-${HOST_NAME}", "a\nb", "$1", "$$", "${", "${}", "a${POD_NAME"]
    {
        inputs.value(group, "common-name", value);
    }
    for value in ["a_b", "\u{fc}", "${POD_IP}", "a\tb"] {
        inputs.value(group, "serialnumber", value);
    }
}

fn lists(inputs: &mut Inputs, group: &str) {
    for value in DNS_NAMES {
        inputs.value(group, "dns-names", value);
    }
    inputs.value(group, "dns-names", &"a".repeat(64));
    inputs.value(group, "dns-names", &["a"; 128].join("."));
    for value in URIS {
        inputs.value(group, "uri-sans", value);
    }
    for value in ADDRESSES {
        inputs.value(group, "ip-sans", value);
    }
    for value in [
        "web",
        "@example.org",
        "web@",
        "a b@example.org",
        "web@*.example.org",
        ".a@b",
        "\u{fc}@example.org",
        "<a@b>",
    ] {
        inputs.value(group, "email-sans", value);
    }
    for value in [
        "Server Auth",
        "server-auth",
        "serverAuth",
        "tls",
        "server auth,",
        "server auth;client auth",
        "1.3.6.1",
    ] {
        inputs.value(group, "key-usages", value);
    }
}

/// What cert-manager's csi-driver refuses as well, before or after it has asked an issuer.
fn refused_by_the_peer(inputs: &mut Inputs) {
    let group = CERT_MANAGER;
    #[rustfmt::skip]
    let rows: &[(&str, &[&str])] = &[
        ("duration", DURATIONS),
        ("renew-before", &["1d", "1", "h", "1h30", " 1h", "1h ", "1 h", "1,5h", "1H", "-", ".", "forever", "P1D", "${POD_NAME}"]),
        ("is-ca", &["yes", "1", "True", " true", "true ", "false,"]),
        ("reuse-private-key", &["yes", "1", "True"]),
        ("pkcs12-enable", &["yes", "1", "True"]),
        ("fs-group", &["-1", "1.5", "root", "4294967296", "0x10", " 5", "${POD_UID}"]),
        ("issuer-name", &["a\n"]),
        ("common-name", &["${POD_NAME}-${NODE_NAME}", "$1", "$$", "${POD_IP}"]),
        ("dns-names", &["b\u{fc}cher.example", "${POD_IP}", "${pod_name}", "$HOSTNAME.a"]),
        ("uri-sans", &["ns/shop", "https://a b", "https://a,", "", "1a:b", "https://%zz", "https://a\nb", "spiffe://td/${NODE}", ","]),
        ("ip-sans", ADDRESSES),
        ("key-usages", &["Server Auth", "server-auth", "serverAuth", "tls", "server auth,", "server auth;client auth", "1.3.6.1"]),
        ("organizations", &["\"a", "${NODE_NAME}", "a\nb", "a, \"b\""]),
        ("literal-subject", &["example.com", "CN=a,", "CN=a,,O=b", "XX=a", "=a", "CN=\"a\"", "/CN=a/O=b", "CN=a\\", "CN=#zz", "CN=${NODE_NAME}", "1.2.x=a"]),
    ];
    for (name, values) in rows {
        for value in values.iter().filter(|value| !value.is_empty()) {
            inputs.value(group, name, value);
        }
    }
}

fn files(inputs: &mut Inputs, group: &str) {
    let keystore: &[_] = &[("pkcs12-enable", "true"), ("pkcs12-password", "changeit")];
    let names = [
        ("certificate-file", &[][..]),
        ("privatekey-file", &[]),
        ("ca-file", &[]),
        ("pkcs12-filename", keystore),
    ];
    for (name, others) in names {
        for value in
            ["/etc/passwd", "a/b", "../a", "..", "..data", ".", " a", "a ", "a\n", "a\0", &"a".repeat(256)]
        {
            inputs.beside(group, name, value, others);
        }
    }
    inputs.value(group, "certificate-file", "tls.key");
    inputs.value(group, "privatekey-file", "ca.crt");
    inputs.value(group, "ca-file", "tls.crt");
    inputs.beside(group, "privatekey-file", "same.pem", &[("certificate-file", "same.pem")]);
    inputs.beside(group, "pkcs12-filename", "tls.crt", keystore);
    inputs.beside(group, "ca-file", "keystore.p12", keystore);
    inputs.value(group, "pkcs12-filename", "store.p12");
    inputs.value(group, "pkcs12-password", "changeit");
    if group == CERT_MANAGER {
        let enabled = [("issuer-name", "ca"), ("pkcs12-enable", "true")];
        inputs.add(group, "pkcs12-password", "missing", &enabled);
    }
}

fn keys(inputs: &mut Inputs, group: &str) {
    for value in ["DSA", "rsa2048", "EC", "P256", "ed448", " RSA", "RSA,ECDSA"] {
        inputs.value(group, "key-algorithm", value);
    }
    for (algorithm, sizes) in [
        ("RSA", &["1024", "2047", "8193", "256", "0", "-2048", "2048bit", "2048.0", "99999999999"][..]),
        ("ecdsa", &["224", "512", "2048", "P-256", "0"]),
        ("Ed25519", &["25519", "256", "0", "x"]),
    ] {
        for size in sizes {
            inputs.beside(group, "key-size", size, &[("key-algorithm", algorithm)]);
        }
    }
    for value in ["PEM", "DER", "PKCS12", "PKCS#8", "pkcs-1", "SEC1"] {
        inputs.value(group, "key-encoding", value);
    }
    for algorithm in ["ECDSA", "Ed25519"] {
        inputs.beside(group, "key-encoding", "pkcs1", &[("key-algorithm", algorithm)]);
    }
}

fn subjects(inputs: &mut Inputs, group: &str) {
    for name in [
        "organizations",
        "organizationalunits",
        "provinces",
        "localities",
        "streetaddresses",
        "postalcodes",
        "countries",
    ] {
        for value in ["a,,b", "\"a", "${HOST_NAME}", "a\u{7}b", "a,\nb\nc"] {
            inputs.value(group, name, value);
        }
        inputs.beside(group, name, "a", &[("literal-subject", "CN=a")]);
    }
    inputs.beside(group, "common-name", "a", &[("literal-subject", "CN=a")]);
    inputs.beside(group, "serialnumber", "1", &[("literal-subject", "CN=a")]);
    inputs.value(group, "countries", "\u{d6}sterreich");
    for value in SUBJECTS {
        inputs.value(group, "literal-subject", value);
    }
}

fn unknown_names(inputs: &mut Inputs, group: &str) {
    for name in [
        "issuer",
        "dnsnames",
        "dns-name",
        "DNS-Names",
        "ip-addresses",
        "uris",
        "commonname",
        "comon-name",
        "key-usage",
        "keysize",
        "renewbefore",
        "password",
        "pkcs12-pasword",
        "jks-enable",
        "rotation",
        "",
        " duration",
        "duration ",
        "duration/x",
    ] {
        inputs.beside(group, name, "x", &[]);
    }
}

fn signers(inputs: &mut Inputs) {
    for value in ["certmanager", "Local", "vault", "aws", "local,acm-pca", " local"] {
        inputs.value(CERTLET, "signer", value);
    }
    for name in ["issuer-name", "issuer-kind", "issuer-group"] {
        inputs.beside(CERTLET, name, "ca", &[("signer", "local")]);
        inputs.beside(CERTLET, name, "ca", &[("signer", "acm-pca"), ("certificate-authority-arn", CA_ARN)]);
    }
    inputs.add(CERTLET, "certificate-authority-arn", "missing", &[("signer", "acm-pca")]);
    let private_ca = [("signer", "acm-pca"), ("certificate-authority-arn", CA_ARN)];
    let fields = [
        (
            "certificate-authority-arn",
            &["ca", "arn:aws:acm:::x", "arn:aws:acm-pca:::template/A/V1", "arn:gcp:acm-pca:x"][..],
        ),
        ("signing-algorithm", &["SHA256", "sha256withrsa", "SHA1WITHRSA", "ECDSA"]),
        ("template-arn", &["EndEntityCertificate/V1", "arn:aws:acm-pca:::template/A", CA_ARN]),
        ("role-arn", &["role", "arn:aws:iam::1:role/a", "arn:aws:iam::123456789012:user/a", CA_ARN]),
        ("use-pod-identity", &["yes", "True", "1", ROLE_ARN]),
    ];
    for (name, values) in fields {
        for value in values {
            inputs.beside(CERTLET, name, value, &private_ca);
        }
        inputs.value(CERTLET, name, CA_ARN);
        inputs.beside(CERTLET, name, CA_ARN, &[("signer", "local")]);
    }
    let with_pod_identity =
        [("signer", "acm-pca"), ("certificate-authority-arn", CA_ARN), ("use-pod-identity", "true")];
    inputs.beside(CERTLET, "role-arn", ROLE_ARN, &with_pod_identity);
    for switch in ["true", "false"] {
        inputs.beside(CERTLET, "use-pod-identity", switch, &[("signer", "local")]);
        inputs.beside(CERTLET, "use-pod-identity", switch, &[]);
    }
    for value in ["/a", "..a", "tls.key", "tls.crt", "ca.crt", " a", "a/b"] {
        inputs.beside(CERTLET, "combined-file", value, &[]);
        inputs.beside(CERTLET, "crl-file", value, &[]);
    }
}

/// Trust sources, for a driver that lists none.
fn trust_sources(inputs: &mut Inputs) {
    let nine = ["signer"; 9].join(",");
    for value in [
        "Signer",
        "partners",
        "/etc/ca.crt",
        "file:/etc/ca.crt",
        "configmap:roots",
        "configmap:",
        "pvc:roots",
        &nine,
    ] {
        inputs.value(CERTLET, "ca-source", value);
    }
    for value in [
        "clustertrustbundle:",
        "clustertrustbundle:A",
        "clustertrustbundle:a/b/c",
        "clustertrustbundle:a/b?c",
    ] {
        inputs.value(CERTLET, "ca-source", value);
    }
}

/// SPIFFE IDs and layouts, for a driver without a trust domain.
fn spiffe(inputs: &mut Inputs) {
    const ID: &str = "spiffe://example.org/ns/shop/sa/cart";
    for value in ["true", "yes", "True"] {
        inputs.value(CERTLET, "spiffe", value);
    }
    inputs.value(CERTLET, "uri-sans", "spiffe://example.org");
    inputs.beside(CERTLET, "uri-sans", ID, &[("is-ca", "true")]);
    for value in ["server auth", "digital signature, cert sign", "digital signature, crl sign"] {
        inputs.beside(CERTLET, "key-usages", value, &[("uri-sans", ID)]);
    }
    for value in ["Istio", "spire", "spiffe", "default,istio"] {
        inputs.value(CERTLET, "layout", value);
    }
    for layout in ["istio", "spiffe", "envoy"] {
        for name in ["certificate-file", "privatekey-file", "ca-file"] {
            inputs.beside(CERTLET, name, "a.pem", &[("uri-sans", ID), ("layout", layout)]);
        }
    }
    inputs.beside(CERTLET, "layout", "istio", &[("socket-file", "s"), ("files", "false")]);
    inputs.beside(CERTLET, "combined-file", "key.pem", &[("layout", "istio")]);
    inputs.beside(
        CERTLET,
        "socket-file",
        "a.spiffe-trust-bundle.x509.pem",
        &[("uri-sans", ID), ("layout", "spiffe")],
    );
    let rsa = [("key-algorithm", "RSA"), ("uri-sans", ID), ("layout", "spiffe")];
    inputs.beside(CERTLET, "key-encoding", "PKCS1", &rsa);
    for value in ["*", "partner.org", "example.org"] {
        inputs.beside(CERTLET, "federated-bundles", value, &[("uri-sans", ID)]);
    }
    inputs.beside(CERTLET, "federated-bundles", "*", &[("dns-names", "a")]);
}

fn foreign_names(inputs: &mut Inputs) {
    let mut foreign = |attribute: &str, why: &str, others: &[(String, &str)]| {
        let others = others.iter().map(|(key, value)| (key.clone(), (*value).to_owned()));
        let own = [(attribute.to_owned(), "x".to_owned())];
        inputs.push(attribute.to_owned(), why, kubelet_keys().chain(others).chain(own).collect());
    };
    let ours = [(format!("{CERTLET}/issuer-name"), "ca")];
    let theirs = [(format!("{CERT_MANAGER}/issuer-name"), "ca")];
    foreign("issuer-name", "no prefix", &ours);
    foreign("", "empty key", &ours);
    foreign("example.com/team", "no annotation in our dialect", &ours);
    foreign("CSI.certlet.io/duration", "prefix in upper case", &ours);
    for key in ["example com/team", "/team", "example.com/", "example.com/a/b", "example.com/-a", "a_b/c"] {
        foreign(key, "no annotation key", &theirs);
    }
    foreign(&format!("example.com/{}", "a".repeat(64)), "annotation name too long", &theirs);
    foreign(&format!("{CERTLET}/duration"), "mixed", &theirs);
    foreign(&format!("{CERTLET}/nonsense"), "mixed and unknown", &theirs);
}

fn kubelet(inputs: &mut Inputs) {
    let issuer = (format!("{CERTLET}/issuer-name"), "ca".to_owned());
    let whole: Vec<_> = kubelet_keys().chain([issuer]).collect();
    for (key, _) in kubelet_keys() {
        let without = whole.iter().filter(|(other, _)| *other != key).cloned().collect();
        inputs.push(key.clone(), "missing", without);
        let mut empty = whole.clone();
        empty.iter_mut().filter(|(other, _)| *other == key).for_each(|(_, value)| value.clear());
        inputs.push(key, "empty", empty);
    }
    for (name, values) in [
        ("ephemeral", &["false", "True", "1"][..]),
        (
            "serviceAccount.tokens",
            &[
                "secret",
                "[]",
                "{\"\":{}}",
                "{\"\":{\"token\":\"secret\"}}",
                "{\"\":\"secret\"}",
                "{\"\":{\"token\":\"secret\",\"expirationTimestamp\":\"secret\"}}",
                "{\"\":{\"token\":\"\",\"expirationTimestamp\":\"2030-01-02T03:04:05Z\"}}",
            ],
        ),
    ] {
        for value in values {
            let key = format!("{KUBELET}/{name}");
            let mut attributes: Vec<_> = whole.iter().filter(|(other, _)| *other != key).cloned().collect();
            attributes.push((key.clone(), (*value).to_owned()));
            inputs.push(key, value, attributes);
        }
    }
}
