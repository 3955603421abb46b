//! A password under a mistyped name, from the kubelet's call to the signer, the store, the log and the Event.

use super::{LIMITS, options, target, volume};
use crate::attributes::{self, OperatorDefaults, VolumeContext};
use crate::model::{CertificateSpec, EventKind, Failure, PodEvent, SignerKind, SignerSpec, WorkloadIdentity};
use crate::namespace::in_namespace;
use crate::platform::SystemClock;
use crate::signer::{ConfiguredSigner, LocalCa, SignedChain, Signer, SigningRequest};
use crate::trust::{CrlMetrics, CrlOptions, Crls, Pins, TrustMetrics, TrustSources};
use crate::volume::report::EventSink;
use crate::volume::{Parts, PublishRequest, VolumeFiles, VolumeService};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

const MISTYPED: &str = "csi.cert-manger.io/pkcs12-password";
const PASSWORD: &str = "correct-horse";

/// A local CA in the part of cert-manager. Keeps the annotations of its requests.
struct FakeCertManager {
    ca: Arc<LocalCa>,
    annotations: Arc<Mutex<Vec<BTreeMap<String, String>>>>,
}

impl Signer for FakeCertManager {
    fn kind(&self) -> SignerKind {
        SignerKind::CertManager
    }

    fn is_resumable(&self) -> bool {
        false
    }

    fn needs_token(&self, _spec: &CertificateSpec) -> bool {
        false
    }

    fn describe(&self, checkpoint: &str) -> String {
        checkpoint.to_owned()
    }

    fn sign<'a>(&'a self, request: &'a SigningRequest<'a>) -> BoxFuture<'a, Result<SignedChain, Failure>> {
        let SignerSpec::CertManager { annotations, .. } = &request.spec.signer else {
            panic!("another signer")
        };
        self.annotations.lock().push(annotations.clone());
        self.ca.sign(request)
    }
}

/// Keeps the Events.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<PodEvent>>>);

impl EventSink for Events {
    fn record(&self, _pod: &WorkloadIdentity, event: PodEvent) {
        self.0.lock().push(event);
    }
}

/// Keeps the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A publish as the kubelet sends it.
fn request(scratch: &Path) -> PublishRequest {
    let context = [
        ("csi.storage.k8s.io/pod.name", "web-0"),
        ("csi.storage.k8s.io/pod.namespace", "shop"),
        ("csi.storage.k8s.io/pod.uid", "u"),
        ("csi.storage.k8s.io/serviceAccount.name", "web"),
        ("csi.storage.k8s.io/ephemeral", "true"),
        ("csi.cert-manager.io/issuer-name", "ca"),
        ("csi.cert-manager.io/dns-names", "web.shop.svc"),
        ("example.com/team", "shop"),
        (MISTYPED, PASSWORD),
    ];
    let context = context.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let context =
        VolumeContext::parse(context, std::collections::HashMap::new(), crate::model::Dialect::Certlet)
            .unwrap();
    let spec = attributes::parse(&context.raw, &context.pod, &OperatorDefaults::default()).unwrap();
    PublishRequest {
        volume: volume("v"),
        target: target(scratch, "pod"),
        context,
        spec: Arc::new(spec),
        mount_group: None,
        timeout: None,
    }
}

fn service(
    scratch: &Path,
    events: &Events,
    annotations: &Arc<Mutex<Vec<BTreeMap<String, String>>>>,
) -> VolumeService {
    let clock = Arc::new(SystemClock);
    let ca = Arc::new(LocalCa::ephemeral(Arc::clone(&clock) as _).unwrap());
    let files = VolumeFiles::open(&options(scratch)).unwrap().0;
    VolumeService::new(Parts {
        crls: Crls::new(
            CrlOptions::default(),
            Arc::clone(&clock) as _,
            Arc::clone(&files.store),
            CrlMetrics::default(),
        ),
        files,
        registry: Arc::default(),
        signers: vec![ConfiguredSigner {
            signer: Arc::new(FakeCertManager { ca: Arc::clone(&ca), annotations: Arc::clone(annotations) }),
            notification: ca,
        }],
        trust: TrustSources::new(Arc::clone(&clock) as _, TrustMetrics::default()),
        clock,
        metrics: Arc::default(),
        events: Some(Box::new(events.clone())),
        addresses: None,
        limits: LIMITS,
        pins: Pins::default(),
        continue_on_not_ready: false,
        defaults: Arc::default(),
    })
}

#[test]
fn a_warning_and_an_event_name_a_mistyped_password_and_nothing_holds_its_value() {
    in_namespace(|scratch| {
        let (events, log, annotations) = (Events::default(), Log::default(), Arc::default());
        let lines = log.clone();
        // This test has a process of its own.
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || lines.clone())
            .init();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let service = service(scratch, &events, &annotations);
            service.publish(request(scratch)).await.unwrap();
            service.publish(request(scratch)).await.expect("a republish brings it again");
        });

        let team = BTreeMap::from([("example.com/team".to_owned(), "shop".to_owned())]);
        assert_eq!(*annotations.lock(), [team]);
        let record = fs::read_to_string(scratch.join("data/volumes/v/record.json")).unwrap();
        assert!(record.contains("example.com/team") && !record.contains(PASSWORD), "{record}");
        let log = String::from_utf8(log.0.lock().clone()).unwrap();
        let warnings: Vec<&str> = log.lines().filter(|line| line.contains(MISTYPED)).collect();
        assert!(warnings.len() == 1 && warnings[0].contains("WARN"), "{log}");
        assert!(!log.contains(PASSWORD), "{log}");
        let events = events.0.lock();
        let ignored: Vec<&PodEvent> =
            events.iter().filter(|event| event.reason == "AttributeIgnored").collect();
        assert!(ignored.len() == 1 && ignored[0].kind == EventKind::Warning, "{events:?}");
        assert!(ignored[0].message.starts_with(&format!("{MISTYPED:?}: ")), "{events:?}");
        assert!(events.iter().all(|event| !event.message.contains(PASSWORD)), "{events:?}");
    });
}

#[test]
fn a_volume_whose_record_holds_a_mistyped_password_is_adopted_without_it() {
    in_namespace(|scratch| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (events, annotations) = (Events::default(), Arc::default());
        runtime.block_on(async {
            service(scratch, &events, &annotations).publish(request(scratch)).await.unwrap();
        });
        // As an earlier build wrote it.
        let path = scratch.join("data/volumes/v/record.json");
        let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        record["attributes"][MISTYPED] = PASSWORD.into();
        fs::write(&path, record.to_string()).unwrap();

        runtime.block_on(async {
            let service = service(scratch, &events, &annotations);
            assert_eq!(service.recover().await.unwrap().adopted, 1);
            service.publish(request(scratch)).await.expect("the same attributes");
            let record = service.volume(&volume("v")).unwrap().record();
            assert!(!serde_json::to_string(&record).unwrap().contains(PASSWORD));
        });
        assert_eq!(annotations.lock().len(), 1, "the certificate stays");
    });
}
