//! Variables in values, with the syntax of Go's `os.Expand`, which cert-manager's csi-driver uses: `${NAME}` and `$NAME`.
//!
//! `os.Expand` silently removes `${}` and an unclosed `${`, which would put a wrong name into a certificate. [`expand`] refuses
//! them, [`expand_as_go`] removes them too. A dollar sign without a name after it stands for itself. A dollar sign before a name
//! cannot be escaped.

use crate::model::{WorkloadIdentity, shown};

/// The variables, in the order the documentation lists them.
pub(in crate::attributes) const VARIABLES: [&str; 4] =
    ["POD_NAME", "POD_NAMESPACE", "POD_UID", "SERVICE_ACCOUNT_NAME"];

/// Replaces every variable. Variables in the value of a variable are not replaced.
pub(in crate::attributes) fn expand(text: &str, pod: &WorkloadIdentity) -> Result<String, String> {
    replace(text, pod, |broken| Err(broken.problem().into()))
}

/// As [`expand`], but without what `os.Expand` removes.
pub(in crate::attributes) fn expand_as_go(text: &str, pod: &WorkloadIdentity) -> Result<String, String> {
    replace(text, pod, |_| Ok(()))
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
    pod: &WorkloadIdentity,
    broken: impl Fn(Broken) -> Result<(), String>,
) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once('$') {
        expanded.push_str(head);
        let (reference, after) = reference(tail);
        match reference {
            Reference::Name(name) => expanded.push_str(value(name, pod)?),
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

fn value<'a>(name: &str, pod: &'a WorkloadIdentity) -> Result<&'a str, String> {
    match name {
        "POD_NAME" => Ok(&pod.name),
        "POD_NAMESPACE" => Ok(&pod.namespace),
        "POD_UID" => Ok(&pod.uid),
        "SERVICE_ACCOUNT_NAME" => Ok(&pod.service_account),
        _ => Err(format!("has the unknown variable {} (known: {})", shown(name), VARIABLES.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
