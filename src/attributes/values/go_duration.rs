//! Durations as Go's `time.ParseDuration` reads them: `1h30m`, `90s`, `1.5h`, `2160h0m0s`.

use std::time::Duration;

/// The most nanoseconds Go's signed 64 bit duration can be below zero; one fewer above.
const LIMIT: u64 = 1 << 63;

/// Reads a duration that is above zero.
pub(in crate::attributes) fn positive(text: &str) -> Result<Duration, String> {
    let (negative, nanoseconds) = magnitude(text)?;
    match nanoseconds {
        0 => Err("is zero".into()),
        _ if negative => Err("is negative".into()),
        LIMIT.. => Err(too_long()),
        nanoseconds => Ok(Duration::from_nanos(nanoseconds)),
    }
}

/// Sign and nanoseconds, the latter at most [`LIMIT`].
fn magnitude(text: &str) -> Result<(bool, u64), String> {
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok((negative, 0));
    }
    if rest.is_empty() {
        return Err("is not a duration".into());
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let (part, after) = one_part(rest)?;
        total = total.checked_add(part).filter(|sum| *sum <= LIMIT).ok_or_else(too_long)?;
        rest = after;
    }
    Ok((negative, total))
}

/// One number with its unit, in nanoseconds, and what follows it.
fn one_part(text: &str) -> Result<(u64, &str), String> {
    let (digits, rest) = split_digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(after) => split_digits(after),
        None => ("", rest),
    };
    if digits.is_empty() && fraction.is_empty() {
        return Err("is not a duration".into());
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    if name.is_empty() {
        return Err("has a number without a unit".into());
    }
    let unit = unit(name).ok_or_else(|| format!("has the unknown unit {name:?}"))?;
    let whole = whole_number(digits)?.checked_mul(unit).filter(|v| *v <= LIMIT).ok_or_else(too_long)?;
    let sum = whole.checked_add(fraction_of(fraction, unit)).filter(|v| *v <= LIMIT).ok_or_else(too_long)?;
    Ok((sum, after))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn whole_number(digits: &str) -> Result<u64, String> {
    if digits.is_empty() {
        return Ok(0);
    }
    digits.parse().ok().filter(|v| *v <= LIMIT).ok_or_else(too_long)
}

/// Go multiplies fractions as floating point numbers; so does this, to agree to the nanosecond.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "as Go does"
)]
fn fraction_of(digits: &str, unit: u64) -> u64 {
    let (mut value, mut scale) = (0_u64, 1_f64);
    for digit in digits.bytes() {
        // Digits past what 63 bits hold make no difference of a nanosecond: Go leaves them out.
        match value.checked_mul(10).and_then(|v| v.checked_add(u64::from(digit - b'0'))) {
            Some(next) if next < LIMIT => value = next,
            _ => break,
        }
        scale *= 10.0;
    }
    (value as f64 * (unit as f64 / scale)) as u64
}

fn unit(name: &str) -> Option<u64> {
    Some(match name {
        "ns" => 1,
        // The micro sign and the Greek letter mu look alike; Go takes both.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

fn too_long() -> String {
    "is longer than the 2562047h47m16.854775807s that a Go duration holds".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nanoseconds(text: &str) -> u128 {
        positive(text).unwrap_or_else(|problem| panic!("{text:?} {problem}")).as_nanos()
    }

    #[test]
    fn durations_read_as_go_reads_them() {
        let second = 1_000_000_000;
        for (text, expected) in [
            ("5s", 5 * second),
            ("1478s", 1478 * second),
            ("+5s", 5 * second),
            ("5.0s", 5 * second),
            ("5.6s", 5_600_000_000),
            ("5.s", 5 * second),
            (".5s", second / 2),
            ("1.004s", 1_004_000_000),
            ("100.00100s", 100_001_000_000),
            ("10ns", 10),
            ("11us", 11_000),
            ("12\u{b5}s", 12_000),
            ("12\u{3bc}s", 12_000),
            ("13ms", 13_000_000),
            ("14m", 14 * 60 * second),
            ("2160h0m0s", 2160 * 3600 * second),
            ("10.5s4m", 250_500_000_000),
            ("2m3.4s", 123_400_000_000),
            ("1h2m3s4ms5us6ns", 3_723_004_005_006),
            ("39h9m14.425s", 140_954_425_000_000),
            ("52763797000ns", 52_763_797_000),
            ("0.3333333333333333333h", 1200 * second),
            ("9007199254740993ns", 9_007_199_254_740_993),
            ("9223372036854775807ns", 9_223_372_036_854_775_807),
            ("9223372036854775.807us", 9_223_372_036_854_775_807),
            ("9223372036s854ms775us807ns", 9_223_372_036_854_775_807),
            ("0.100000000000000000000h", 360 * second),
            ("0.830103483285477580700h", 2_988_372_539_827),
        ] {
            assert_eq!(nanoseconds(text), expected, "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in [
            "",
            "3",
            "-",
            "s",
            ".",
            "-.",
            ".s",
            "+.s",
            "1d",
            "1 h",
            "h",
            "1h30",
            " 1h",
            "1h ",
            "\u{85}",
            "1h\0m",
            "9223372036854775810ns",
            "9223372036854775808ns",
            "9223372036854ms775us808ns",
            "3000000h",
            "9223372036854775.808us",
            "1e3s",
            "0x1h",
            "1H",
            "--1h",
        ] {
            assert!(positive(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn zero_and_negative_durations_are_refused() {
        for text in ["0", "0s", "-0", "+0", "0h0m0s", "0.0000000001ns"] {
            assert_eq!(positive(text), Err("is zero".into()), "{text}");
        }
        for text in ["-1ns", "-1h30m", "-9223372036854775808ns"] {
            assert_eq!(positive(text), Err("is negative".into()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_written_as_go_writes_it_reads_back(nanos in 1..=i64::MAX) {
            let nanos = nanos.unsigned_abs();
            let (hours, rest) = (nanos / 3_600_000_000_000, nanos % 3_600_000_000_000);
            let (minutes, rest) = (rest / 60_000_000_000, rest % 60_000_000_000);
            let text = format!("{hours}h{minutes}m{}.{:09}s", rest / 1_000_000_000, rest % 1_000_000_000);
            prop_assert_eq!(nanoseconds(&text), u128::from(nanos));
        }

        #[test]
        fn units_add_up(hours in 0_u64..1000, minutes in 0_u64..1000, seconds in 1_u64..1000, millis in 0_u64..1000) {
            let text = format!("{hours}h{minutes}m{seconds}s{millis}ms");
            let expected = ((hours * 60 + minutes) * 60 + seconds) * 1000 + millis;
            prop_assert_eq!(positive(&text), Ok(Duration::from_millis(expected)));
        }

        #[test]
        fn hours_past_the_range_are_refused(hours in 2_562_048_u64..) {
            let text = format!("{hours}h");
            prop_assert!(positive(&text).is_err());
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = positive(&text);
        }

        #[test]
        fn no_text_of_the_right_letters_makes_it_panic(text in "[-+0-9.hmsnu\u{b5}]{0,24}") {
            let _ = positive(&text);
        }
    }
}
