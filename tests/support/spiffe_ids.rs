//! Texts that are SPIFFE IDs, and texts that are none. The tests of the library and those of real consumers include this file.

#![allow(dead_code, reason = "every test uses a part of it")]

/// IDs of trust domains (the SPIFFE ID standard, section 2.1): valid, and for certificates of CAs only.
pub(crate) fn trust_domains() -> Vec<String> {
    ["spiffe://example.org", "spiffe://10.0.0.1", "spiffe://a_b-c.1"].map(str::to_owned).to_vec()
}

/// SPIFFE IDs of workloads (the SPIFFE ID standard, section 2).
pub(crate) fn workloads() -> Vec<String> {
    let mut ids = [
        "spiffe://a_b-c.1/ns/shop/sa/Web_1",
        "spiffe://example.org/.hidden/a..b",
        "spiffe://example.org/.../a",
        "spiffe://10.0.0.1/a",
        "spiffe://-/-",
        "spiffe://example.org./a",
    ]
    .map(str::to_owned)
    .to_vec();
    ids.extend([format!("spiffe://{}/a", "a".repeat(255)), format!("spiffe://td/{}", "a".repeat(2036))]);
    ids
}

/// Not SPIFFE IDs.
pub(crate) fn invalid() -> Vec<String> {
    [
        "spiffe:example.org/a",
        "spiffe:/example.org/a",
        "spiffe:///a",
        "spiffe://",
        "spiffe://Example.org/a",
        "spiffe://ex\u{e4}mple.org/a",
        "spiffe://exa%6dple.org/a",
        "spiffe://exa mple.org/a",
        "spiffe://example.org:443/a",
        "spiffe://example.org:/a",
        "spiffe://user@example.org/a",
        "spiffe://example.org?a",
        "spiffe://example.org#a",
        "spiffe://example.org/",
        "spiffe://example.org/a/",
        "spiffe://example.org//a",
        "spiffe://example.org/a//b",
        "spiffe://example.org/.",
        "spiffe://example.org/..",
        "spiffe://example.org/a/./b",
        "spiffe://example.org/a/../b",
        "spiffe://example.org/a?b",
        "spiffe://example.org/a?",
        "spiffe://example.org/a#b",
        "spiffe://example.org/a#",
        "spiffe://example.org/a%62",
        "spiffe://example.org/a%2fb",
        "spiffe://example.org/a:b",
        "spiffe://example.org/a@b",
        "spiffe://example.org/a~b",
        "spiffe://example.org/a+b",
        "spiffe://example.org/a,b",
        "spiffe://example.org/a;b",
        "spiffe://example.org/a b",
        "spiffe://example.org/\u{e4}",
        "spiffe://example.org/a\\b",
        "spiffe://[::1]/a",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Longer than the standard allows: a trust domain of 256 bytes, and an ID of 2,049.
pub(crate) fn too_long() -> [String; 2] {
    [format!("spiffe://{}/a", "a".repeat(256)), format!("spiffe://td/{}", "a".repeat(2037))]
}
