//! Variables in values, with the syntax of Go's `os.Expand`, which cert-manager's csi-driver uses: `${NAME}` and `$NAME`.
//!
//! `os.Expand` silently removes `${}` and an unclosed `${`, which would put a wrong name into a certificate. [`expand`] refuses
//! them, [`expand_as_go`] removes them too. A dollar sign without a name after it stands for itself. A dollar sign before a name
//! cannot be escaped.

use crate::model::{WorkloadIdentity, shown};

/// The variables of every prefix, in the order the documentation lists them.
pub(in crate::attributes) const VARIABLES: [&str; 4] =
    ["POD_NAME", "POD_NAMESPACE", "POD_UID", "SERVICE_ACCOUNT_NAME"];

/// The variables that the prefix `csi.certlet.io/` has besides.
pub(in crate::attributes) const OWN_VARIABLES: [&str; 2] = ["NODE_NAME", "POD_IP"];

/// What variables stand for.
#[derive(Clone, Copy, Debug)]
pub(in crate::attributes) struct Values<'a> {
    /// The pod.
    pub(in crate::attributes) pod: &'a WorkloadIdentity,
    /// [`OWN_VARIABLES`]; none under the prefixes of other drivers.
    pub(in crate::attributes) own: Option<OwnValues<'a>>,
}

/// What [`OWN_VARIABLES`] stand for. An error says why one has no value here.
#[derive(Clone, Copy, Debug)]
pub(in crate::attributes) struct OwnValues<'a> {
    /// `NODE_NAME`
    pub(in crate::attributes) node_name: Result<&'a str, &'a str>,
    /// `POD_IP`
    pub(in crate::attributes) pod_ip: Result<&'a str, &'a str>,
}

/// Replaces every variable. Variables in the value of a variable are not replaced.
pub(in crate::attributes) fn expand(text: &str, values: Values<'_>) -> Result<String, String> {
    replace(text, values, |broken| Err(broken.problem().into()))
}

/// As [`expand`], but without what `os.Expand` removes.
pub(in crate::attributes) fn expand_as_go(text: &str, values: Values<'_>) -> Result<String, String> {
    replace(text, values, |_| Ok(()))
}

/// Braces that hold no variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Empty,
    Open,
}

impl Broken {
    fn problem(self) -> &'static str {
        match self {
            Self::Empty => "has the empty variable ${}",
            Self::Open => "has a ${ without its }",
        }
    }
}

/// What follows a dollar sign.
#[derive(Debug)]
enum Reference<'a> {
    None,
    Name(&'a str),
    Broken(Broken),
}

fn replace(
    text: &str,
    values: Values<'_>,
    broken: impl Fn(Broken) -> Result<(), String>,
) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once('$') {
        expanded.push_str(head);
        let (reference, after) = reference(tail);
        match reference {
            Reference::Name(name) => expanded.push_str(values.of(name)?),
            Reference::None => expanded.push('$'),
            Reference::Broken(found) => broken(found)?,
        }
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// What follows a dollar sign, and the text after it.
fn reference(tail: &str) -> (Reference<'_>, &str) {
    if let Some(braced) = tail.strip_prefix('{') {
        return match braced.split_once('}') {
            Some(("", after)) => (Reference::Broken(Broken::Empty), after),
            Some((name, after)) => (Reference::Name(name), after),
            None => (Reference::Broken(Broken::Open), braced),
        };
    }
    // The shell's special variables are names too: `$$` and `$1` are unknown variables, not text.
    if tail.starts_with(|c: char| c.is_ascii_digit() || "*#$@!?-".contains(c)) {
        return (Reference::Name(&tail[..1]), &tail[1..]);
    }
    let end = tail.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(tail.len());
    let (name, after) = tail.split_at(end);
    (if name.is_empty() { Reference::None } else { Reference::Name(name) }, after)
}

impl<'a> Values<'a> {
    /// The value of a variable.
    fn of(self, name: &str) -> Result<&'a str, String> {
        let missing = |why: &str| format!("has the variable {name}, {why}");
        match (name, self.own) {
            ("POD_NAME", _) => Ok(&self.pod.name),
            ("POD_NAMESPACE", _) => Ok(&self.pod.namespace),
            ("POD_UID", _) => Ok(&self.pod.uid),
            ("SERVICE_ACCOUNT_NAME", _) => Ok(&self.pod.service_account),
            ("NODE_NAME", Some(own)) => own.node_name.map_err(missing),
            ("POD_IP", Some(own)) => own.pod_ip.map_err(missing),
            (_, own) => {
                let own = if own.is_some() { &OWN_VARIABLES[..] } else { &[] };
                let known = [&VARIABLES[..], own].concat().join(", ");
                Err(format!("has the unknown variable {} (known: {known})", shown(name)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expand(text: &str, pod: &WorkloadIdentity) -> Result<String, String> {
        super::expand(text, Values { pod, own: None })
    }

    fn expand_as_go(text: &str, pod: &WorkloadIdentity) -> Result<String, String> {
        super::expand_as_go(text, Values { pod, own: None })
    }

    fn pod() -> WorkloadIdentity {
        WorkloadIdentity {
            namespace: "shop".into(),
            name: "cart-0".into(),
            uid: "b8f1".into(),
            service_account: "cart".into(),
        }
    }

    #[test]
    fn variables_are_replaced_with_and_without_braces() {
        assert_eq!(expand("${POD_NAME}.${POD_NAMESPACE}.svc", &pod()), Ok("cart-0.shop.svc".into()));
        assert_eq!(expand("$SERVICE_ACCOUNT_NAME-$POD_UID", &pod()), Ok("cart-b8f1".into()));
        assert_eq!(expand("spiffe://td/ns/${POD_NAMESPACE}", &pod()), Ok("spiffe://td/ns/shop".into()));
    }

    #[test]
    fn a_dollar_sign_without_a_name_stands_for_itself() {
        assert_eq!(expand("5$", &pod()), Ok("5$".into()));
        assert_eq!(expand("a$/b$ c$.d", &pod()), Ok("a$/b$ c$.d".into()));
        assert_eq!(expand("a$\u{e9}", &pod()), Ok("a$\u{e9}".into()));
    }

    #[test]
    fn a_variable_that_holds_a_variable_is_not_replaced_again() {
        let pod = WorkloadIdentity { name: "${POD_UID}".into(), ..pod() };
        assert_eq!(expand("${POD_NAME}", &pod), Ok("${POD_UID}".into()));
    }

    #[test]
    fn an_unknown_variable_is_an_error_that_lists_the_known_ones() {
        let problem = expand("${POD_IP}", &pod()).unwrap_err();
        assert_eq!(
            problem,
            "has the unknown variable \"POD_IP\" (known: POD_NAME, POD_NAMESPACE, POD_UID, SERVICE_ACCOUNT_NAME)"
        );
        for text in ["$$", "$1", "$*", "${$}", "$pod_name", "${ POD_NAME}", "$POD_NAMES"] {
            assert!(expand(text, &pod()).unwrap_err().contains("unknown variable"), "{text}");
        }
    }

    #[test]
    fn our_own_variables_are_known_under_our_own_prefix_alone() {
        let pod = pod();
        let own = OwnValues { node_name: Ok("node-1"), pod_ip: Err("which is not known yet") };
        let expand = |text| super::expand(text, Values { pod: &pod, own: Some(own) });
        assert_eq!(expand("${NODE_NAME}.$POD_NAME"), Ok("node-1.cart-0".into()));
        assert_eq!(expand("${POD_IP}").unwrap_err(), "has the variable POD_IP, which is not known yet");
        assert!(expand("${POD_IPS}").unwrap_err().ends_with("SERVICE_ACCOUNT_NAME, NODE_NAME, POD_IP)"));
    }

    #[test]
    fn a_long_name_of_a_variable_is_cut() {
        let problem = expand(&format!("${{{}}}", "x".repeat(60_000)), &pod()).unwrap_err();
        assert!(problem.len() < 250, "{}", problem.len());
    }

    #[test]
    fn braces_that_do_not_close_are_an_error() {
        for text in ["${", "a${POD_NAME", "${}", "x${}y"] {
            assert!(expand(text, &pod()).is_err(), "{text}");
        }
    }

    #[test]
    fn go_removes_braces_that_do_not_close() {
        for (text, expected) in [
            ("${", ""),
            ("a${POD_NAME", "aPOD_NAME"),
            ("${}", ""),
            ("x${}y", "xy"),
            ("${}${POD_NAME}", "cart-0"),
        ] {
            assert_eq!(expand_as_go(text, &pod()).as_deref(), Ok(expected), "{text}");
        }
        assert!(expand_as_go("${POD_IP}${}", &pod()).unwrap_err().contains("unknown variable"));
    }

    proptest! {
        #[test]
        fn text_without_a_dollar_sign_is_unchanged(text in "[^$]{0,40}") {
            prop_assert_eq!(expand(&text, &pod()), Ok(text));
        }

        #[test]
        fn a_braced_variable_is_replaced_wherever_it_stands(before in "[^$]{0,10}", after in "[^$]{0,10}", i in 0_usize..4) {
            let text = format!("{before}${{{}}}{after}", VARIABLES[i]);
            let value = ["cart-0", "shop", "b8f1", "cart"][i];
            prop_assert_eq!(expand(&text, &pod()), Ok(format!("{before}{value}{after}")));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(?s)[$\\{\\}A-Z_]{0,12}|.{0,12}") {
            let _ = expand(&text, &pod());
        }
    }
}
