//! Checks of the ARNs that the signer `acm-pca` needs.

use crate::model::Arn;

/// The limit of AWS Private CA on the ARNs of CAs and templates.
const MAX_PRIVATE_CA_ARN_BYTES: usize = 200;
/// The limit of STS on the ARN of a role.
const MAX_ROLE_ARN_BYTES: usize = 2048;

/// `arn:PARTITION:acm-pca:REGION:ACCOUNT:certificate-authority/UUID`
pub(in crate::attributes) fn certificate_authority(text: &str) -> Result<Arn, String> {
    let arn = parse(text, "acm-pca", MAX_PRIVATE_CA_ARN_BYTES)?;
    let region_byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if arn.region().is_empty() || !arn.region().bytes().all(region_byte) {
        return Err("has no Region".into());
    }
    check_account(&arn)?;
    match arn.resource().strip_prefix("certificate-authority/") {
        Some(id) if is_uuid(id) => Ok(arn),
        Some(_) => Err("does not end in the UUID of a certificate authority".into()),
        None => Err("does not name a certificate authority".into()),
    }
}

/// `arn:PARTITION:acm-pca:::template/NAME/V1`
pub(in crate::attributes) fn template(text: &str) -> Result<String, String> {
    let arn = parse(text, "acm-pca", MAX_PRIVATE_CA_ARN_BYTES)?;
    if !arn.region().is_empty() || !arn.account().is_empty() {
        return Err("has a Region or an account, which templates do not".into());
    }
    let template = arn.resource().strip_prefix("template/").and_then(|rest| rest.split_once("/V"));
    let (name, version) = template.ok_or("does not name a template")?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let is_version = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit());
    if is_name && is_version { Ok(text.to_owned()) } else { Err("does not name a template".into()) }
}

/// `arn:PARTITION:iam::ACCOUNT:role/PATH/NAME`
pub(in crate::attributes) fn role(text: &str) -> Result<String, String> {
    let arn = parse(text, "iam", MAX_ROLE_ARN_BYTES)?;
    if !arn.region().is_empty() {
        return Err("has a Region, which roles do not".into());
    }
    check_account(&arn)?;
    let name_byte = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@-_".contains(&b);
    let is_name = |name: &str| name.split('/').all(|part| !part.is_empty() && part.bytes().all(name_byte));
    match arn.resource().strip_prefix("role/") {
        Some(name) if is_name(name) => Ok(text.to_owned()),
        _ => Err("does not name a role".into()),
    }
}

fn parse(text: &str, service: &str, max_bytes: usize) -> Result<Arn, String> {
    if text.len() > max_bytes {
        return Err(format!("is {} bytes long (at most {max_bytes} are accepted)", text.len()));
    }
    // `aws`, `aws-cn`, `aws-us-gov`, and any later partition.
    let suffix = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    let is_partition = |name: &str| name == "aws" || name.strip_prefix("aws-").is_some_and(suffix);
    let arn = Arn::parse(text).filter(|arn| is_partition(arn.partition()));
    let arn = arn.ok_or("is not an ARN of an AWS partition")?;
    if arn.service() == service { Ok(arn) } else { Err(format!("is not an ARN of the service {service}")) }
}

fn check_account(arn: &Arn) -> Result<(), String> {
    let is_account = arn.account().len() == 12 && arn.account().bytes().all(|b| b.is_ascii_digit());
    if is_account { Ok(()) } else { Err("has no account of 12 digits".into()) }
}

fn is_uuid(text: &str) -> bool {
    let lengths: Vec<_> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/11111111-2222-3333-4444-555555555555";

    #[test]
    fn arns_of_every_partition_are_accepted() {
        for partition in ["aws", "aws-cn", "aws-us-gov"] {
            let arn = CA.replacen("aws", partition, 1);
            assert_eq!(certificate_authority(&arn).unwrap().as_str(), arn);
            assert!(template(&format!("arn:{partition}:acm-pca:::template/EndEntityCertificate/V1")).is_ok());
            assert!(role(&format!("arn:{partition}:iam::123456789012:role/pca/issuer")).is_ok());
        }
    }

    #[test]
    fn an_arn_is_no_longer_than_aws_accepts() {
        let role_of = |length: usize| {
            let start = "arn:aws:iam::123456789012:role/";
            role(&format!("{start}{}", "a".repeat(length - start.len())))
        };
        assert!(role_of(2048).is_ok());
        assert_eq!(role_of(2049), Err("is 2049 bytes long (at most 2048 are accepted)".into()));
        let region = "a".repeat(200);
        let invented = certificate_authority(&CA.replace("eu-central-1", &region)).unwrap_err();
        assert!(invented.contains("at most 200"), "{invented}");
        assert!(template(&format!("arn:aws:acm-pca:::template/{region}/V1")).is_err());
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "arn",
            "aws:acm-pca",
            &CA.replace("arn:aws", "arn:gcp"),
            &CA.replace("acm-pca", "acm"),
            &CA.replace("eu-central-1", ""),
            &CA.replace("eu-central-1", "EU"),
            &CA.replace("123456789012", "12345"),
            &CA.replace("certificate-authority", "certificate"),
            &CA.replace("-5555", "5555"),
            &CA.replace("5555", "zzzz"),
            &format!("{CA}/certificate/1"),
        ] {
            assert!(certificate_authority(text).is_err(), "{text}");
        }
        for text in [
            "",
            CA,
            "arn:aws:acm-pca:::template/",
            "arn:aws:acm-pca:::template/A",
            "arn:aws:acm-pca:::template/A/1",
        ] {
            assert!(template(text).is_err(), "{text}");
        }
        for text in [
            "",
            CA,
            "arn:aws:iam::123456789012:user/a",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::1:role/a",
        ] {
            assert!(role(text).is_err(), "{text}");
        }
    }
}
