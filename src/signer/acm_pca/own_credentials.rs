//! The AWS credentials that a pod has for itself, for a certlet that runs inside of the pod.
//!
//! The SDK's default chain uses them, as it uses those of the driver on a node. In aws-config 1.13 its order is environment variables,
//! profile, web identity, container, instance metadata. `web_identity_token.rs` and `ecs.rs` read the file with the token in each
//! call for credentials, and the identity cache makes such a call before the credentials end. So a token that the kubelet has
//! replaced is used without a restart.

use crate::model::PcaCaller;

const ROLE: &str = "AWS_ROLE_ARN";
const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
const CONTAINER: [&str; 2] = ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"];
const STATIC: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];

/// Where credentials can come from, for messages.
const ACCEPTED: &str = "accepted: IAM roles for service accounts (AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE), EKS Pod Identity \
                        (AWS_CONTAINER_CREDENTIALS_FULL_URI), or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";

/// Which credentials the environment of this process offers. It holds no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnCredentials {
    /// The role of IAM roles for service accounts, if there is a token for it.
    role: Option<String>,
    /// Whether there is an endpoint of container credentials, as EKS Pod Identity has it.
    has_container: bool,
    /// Whether there is an access key.
    has_static: bool,
}

impl OwnCredentials {
    /// Reads environment variables with `variable`. An empty one counts as missing.
    pub fn find(variable: impl Fn(&str) -> Option<String>) -> Self {
        let given = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        Self {
            role: given(ROLE).filter(|_| given(TOKEN_FILE).is_some()),
            has_container: CONTAINER.into_iter().any(|name| given(name).is_some()),
            has_static: STATIC.into_iter().all(|name| given(name).is_some()),
        }
    }

    /// An error if the default chain would use other credentials than this caller asks for; it names the attribute. Without credentials of
    /// the pod it refuses every caller, because the chain would go on to the role of the node.
    pub fn check(&self, asked: &PcaCaller) -> Result<(), String> {
        match asked {
            PcaCaller::Driver => self.any(),
            PcaCaller::Role(role) => self.role(role),
            PcaCaller::PodIdentity => self.container(),
        }
    }

    fn any(&self) -> Result<(), String> {
        let has_any = self.role.is_some() || self.has_container || self.has_static;
        has_any.then_some(()).ok_or_else(|| {
            format!(
                "signer: acm-pca needs AWS credentials of the pod, and its environment has none; the role of the node is not used; \
                 {ACCEPTED}"
            )
        })
    }

    fn role(&self, asked: &str) -> Result<(), String> {
        const WAY: &str = "accepted: the role in the annotation eks.amazonaws.com/role-arn of the pod's service account, which sets \
                           AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE";
        self.not_static("role-arn", WAY)?;
        match &self.role {
            Some(own) if own == asked => Ok(()),
            Some(own) => Err(format!("role-arn: {asked} is not the pod's own role, {own}; {WAY}")),
            None => Err(format!(
                "role-arn: the pod has no token for {asked}: {ROLE} or {TOKEN_FILE} is not set; {WAY}"
            )),
        }
    }

    fn container(&self) -> Result<(), String> {
        const WAY: &str = "accepted: an EKS Pod Identity association of the pod's service account alone, which sets \
                           AWS_CONTAINER_CREDENTIALS_FULL_URI";
        self.not_static("use-pod-identity", WAY)?;
        if let Some(own) = &self.role {
            return Err(format!(
                "use-pod-identity: the pod has IAM roles for service accounts too ({ROLE} is {own}), which the AWS SDK prefers; {WAY}"
            ));
        }
        let missing =
            || format!("use-pod-identity: {} is not set in the pod's environment; {WAY}", CONTAINER[0]);
        self.has_container.then_some(()).ok_or_else(missing)
    }

    /// The SDK prefers an access key to everything else.
    fn not_static(&self, attribute: &str, way: &str) -> Result<(), String> {
        if self.has_static {
            return Err(format!("{attribute}: {} is set, which the AWS SDK prefers; {way}", STATIC[0]));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "arn:aws:iam::123456789012:role/shop-web";
    const IRSA: [(&str, &str); 2] = [(ROLE, OWN), (TOKEN_FILE, "/var/run/secrets/eks.amazonaws.com/token")];
    const AGENT: (&str, &str) = (CONTAINER[0], "http://169.254.170.23/v1/credentials");
    const KEY: [(&str, &str); 2] = [(STATIC[0], "AKIA"), (STATIC[1], "secret")];

    /// The environment, the caller that the spec asks for, and what an error says.
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a PcaCaller, Result<(), &'a str>);

    fn checked(environment: &[(&str, &str)], asked: &PcaCaller) -> Result<(), String> {
        let variable = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let own = OwnCredentials::find(variable);
        assert!(!format!("{own:?}").contains("secret"));
        own.check(asked)
    }

    #[test]
    fn a_caller_is_served_only_with_the_credentials_that_the_sdk_would_use() {
        let (driver, role) = (PcaCaller::Driver, PcaCaller::Role(OWN.to_owned()));
        let other = PcaCaller::Role("arn:aws:iam::123456789012:role/admin".to_owned());
        let association = PcaCaller::PodIdentity;
        let both = [IRSA[0], IRSA[1], AGENT];
        let all = [IRSA[0], IRSA[1], AGENT, KEY[0], KEY[1]];
        let none = "the role of the node is not used; accepted: IAM roles";
        let cases: [Case<'_>; 27] = [
            (&IRSA, &driver, Ok(())),
            (&[AGENT], &driver, Ok(())),
            (&[(CONTAINER[1], "/v2/credentials")], &driver, Ok(())),
            (&KEY, &driver, Ok(())),
            (&all, &driver, Ok(())),
            (&[], &driver, Err(none)),
            (&[IRSA[0]], &driver, Err(none)),
            (&[IRSA[1]], &driver, Err(none)),
            (&[KEY[0]], &driver, Err(none)),
            (&[KEY[1]], &driver, Err(none)),
            (&[IRSA[0], (TOKEN_FILE, "")], &driver, Err(none)),
            (&[(CONTAINER[0], " ")], &driver, Err(none)),
            (&IRSA, &role, Ok(())),
            (&both, &role, Ok(())),
            (
                &IRSA,
                &other,
                Err("role-arn: arn:aws:iam::123456789012:role/admin is not the pod's own role, arn"),
            ),
            (
                &[IRSA[0]],
                &role,
                Err("AWS_WEB_IDENTITY_TOKEN_FILE is not set; accepted: the role in the annotation"),
            ),
            (&[AGENT], &role, Err("role-arn: the pod has no token for arn")),
            (&[], &role, Err("role-arn: the pod has no token")),
            (
                &all,
                &role,
                Err("role-arn: AWS_ACCESS_KEY_ID is set, which the AWS SDK prefers; accepted: the role"),
            ),
            (&[AGENT], &association, Ok(())),
            (&[(CONTAINER[1], "/v2/credentials")], &association, Ok(())),
            (&[IRSA[0], AGENT], &association, Ok(())),
            (&both, &association, Err("use-pod-identity: the pod has IAM roles for service accounts too")),
            (
                &IRSA,
                &association,
                Err("which the AWS SDK prefers; accepted: an EKS Pod Identity association"),
            ),
            (&[], &association, Err("use-pod-identity: AWS_CONTAINER_CREDENTIALS_FULL_URI is not set")),
            (&KEY, &association, Err("use-pod-identity: AWS_ACCESS_KEY_ID is set")),
            (&all, &association, Err("use-pod-identity: AWS_ACCESS_KEY_ID is set")),
        ];
        for (environment, asked, expected) in cases {
            match (checked(environment, asked), expected) {
                (Ok(()), Ok(())) => {}
                (Err(error), Err(part)) => {
                    assert!(error.contains(part) && error.contains("; accepted: "), "{part}: {error}");
                }
                (found, expected) => panic!("{environment:?} {asked:?}: {found:?}, not {expected:?}"),
            }
        }
    }
}
