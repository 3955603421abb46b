//! Patterns that no ARN can fit: most often a placeholder of an example that was left in the file.

use crate::model::Arn;

const AUTHORITY_HINT: &str = "accepted: arn:aws:acm-pca:REGION:ACCOUNT:certificate-authority/UUID with your own Region, account and \
     UUID, or asterisks for the last two; `aws acm-pca list-certificate-authorities` shows them";
const CALLER_HINT: &str = "accepted: driver, pod-identity, or arn:aws:iam::ACCOUNT:role/NAME with your own account; `aws iam list-roles` \
     shows them";

/// What keeps every certificate authority from fitting, and what is accepted.
pub(super) fn authority_fault(pattern: &str) -> Option<String> {
    let fault = arn_fault(pattern, "acm-pca", |arn| {
        let is_region = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if is_fixed(arn.region()) && (arn.region().is_empty() || !arn.region().chars().all(is_region)) {
            return Some(format!("has no Region: {:?}", arn.region()));
        }
        match arn.resource().strip_prefix("certificate-authority/") {
            Some(id) if is_fixed(id) && !is_uuid(id) => Some(format!("has no UUID: {id:?}")),
            None if is_fixed(arn.resource()) => Some("names no certificate authority".to_owned()),
            _ => None,
        }
    })?;
    Some(format!("{fault}; {AUTHORITY_HINT}"))
}

/// What keeps every caller from fitting, and what is accepted.
pub(super) fn caller_fault(pattern: &str) -> Option<String> {
    if [super::file::DRIVER, super::file::POD_IDENTITY].contains(&pattern) {
        return None;
    }
    let fault = arn_fault(pattern, "iam", |arn| {
        let is_role = arn.resource().starts_with("role/") || !is_fixed(arn.resource());
        (!is_role).then(|| "names no role".to_owned())
    })?;
    Some(format!("{fault}; {CALLER_HINT}"))
}

/// Checks the parts of an ARN that have neither an asterisk nor a variable.
fn arn_fault(pattern: &str, service: &str, own: impl Fn(&Arn) -> Option<String>) -> Option<String> {
    let Some(arn) = Arn::parse(pattern) else {
        // An asterisk can stand for several parts.
        return is_fixed(pattern).then(|| "is a placeholder: it is no ARN".to_owned());
    };
    // An asterisk before the account can stand for some of the parts, so that what follows is not what it seems.
    let head = [arn.partition(), arn.service(), arn.region()];
    if !head.into_iter().all(is_fixed) {
        return None;
    }
    let is_account = |text: &str| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if arn.service() != service {
        return Some(format!("is an ARN of {:?} and not of {service}", arn.service()));
    }
    if is_fixed(arn.account()) && !is_account(arn.account()) {
        return Some(format!(
            "has a placeholder for the account: {:?} is no number of 12 digits",
            arn.account()
        ));
    }
    own(&arn)
}

/// Whether a text stands for itself alone.
fn is_fixed(text: &str) -> bool {
    !text.contains(['*', '{'])
}

fn is_uuid(text: &str) -> bool {
    let lengths: Vec<_> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/11111111-2222-3333-4444-555555555555";

    #[test]
    fn patterns_that_an_arn_can_fit_have_no_fault() {
        for pattern in [
            CA,
            "**",
            "*",
            "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/*",
            "arn:aws:acm-pca:eu-central-1:*:certificate-authority/*",
            "arn:aws:acm-pca:*",
            "arn:*:certificate-authority/11111111-2222-3333-4444-555555555555",
            "arn:aws:acm-pca:*:123456789012:certificate-authority/1111*",
        ] {
            assert_eq!(authority_fault(pattern), None, "{pattern}");
        }
        for pattern in
            ["driver", "pod-identity", "**", "arn:aws:iam::123456789012:role/{namespace}/*", "arn:aws:iam::*"]
        {
            assert_eq!(caller_fault(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn placeholders_have_a_fault_that_says_what_is_accepted() {
        for (pattern, fault) in [
            ("CA-ARN", "is a placeholder: it is no ARN"),
            ("<arn>", "is a placeholder: it is no ARN"),
            ("arn:aws:acm-pca:REGION:123456789012:certificate-authority/*", "has no Region: \"REGION\""),
            ("arn:aws:acm-pca::123456789012:certificate-authority/*", "has no Region"),
            ("arn:aws:acm-pca:eu-central-1:ACCOUNT:certificate-authority/UUID", "the account: \"ACCOUNT\""),
            ("arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/UUID", "has no UUID: \"UUID\""),
            ("arn:aws:acm-pca:eu-central-1:123456789012:CA", "names no certificate authority"),
            ("arn:aws:iam::123456789012:role/web", "is an ARN of \"iam\""),
        ] {
            let said = authority_fault(pattern).unwrap();
            assert!(said.contains(fault) && said.contains("accepted: arn:aws:acm-pca:"), "{pattern}: {said}");
        }
        for (pattern, fault) in [
            ("ROLE-ARN", "is a placeholder"),
            ("Driver", "is a placeholder"),
            ("arn:aws:iam::ACCOUNT:role/{namespace}", "the account: \"ACCOUNT\""),
            ("arn:aws:iam::123456789012:user/x", "names no role"),
        ] {
            let said = caller_fault(pattern).unwrap();
            assert!(said.contains(fault) && said.contains("accepted: driver, "), "{pattern}: {said}");
        }
    }
}
