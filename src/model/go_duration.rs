//! Durations in the syntax of Go: `1h30m`, `90s`, `1.5h`, `2160h0m0s`.

use std::time::Duration;

/// Go's durations are signed 64 bit numbers of nanoseconds, so they must be below this.
const LIMIT: u128 = 1 << 63;

/// Reads a duration above zero, as Go's `time.ParseDuration` does.
pub(crate) fn positive(text: &str) -> Result<Duration, String> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(unsigned) => (true, unsigned),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    match nanoseconds(unsigned)? {
        0 => Err("is zero".into()),
        _ if negative => Err("is negative".into()),
        LIMIT.. => Err(too_long()),
        nanoseconds => Ok(Duration::from_nanos_u128(nanoseconds)),
    }
}

/// As Go's `time.Duration` prints it: `24h0m0s`, `1m30s`, `1.5s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let [hours, minutes, seconds] = components(duration);
    match (hours.as_str(), minutes.as_str()) {
        ("0h", "0m") => seconds,
        ("0h", _) => minutes + &seconds,
        _ => hours + &minutes + &seconds,
    }
}

/// As [`go_duration`], but without the components that are zero: `24h`, `1h1s`.
pub(crate) fn short_go_duration(duration: Duration) -> String {
    components(duration).into_iter().filter(|part| !matches!(part.as_str(), "0h" | "0m" | "0s")).collect()
}

/// Hours, minutes and seconds, each with its unit.
fn components(duration: Duration) -> [String; 3] {
    let seconds = duration.as_secs();
    let fraction = format!(".{:09}", duration.subsec_nanos());
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    [
        format!("{}h", seconds / 3600),
        format!("{}m", seconds / 60 % 60),
        format!("{}{fraction}s", seconds % 60),
    ]
}

/// The sum of all numbers with their units.
fn nanoseconds(mut text: &str) -> Result<u128, String> {
    if text == "0" {
        return Ok(0);
    }
    if text.is_empty() {
        return Err("is not a duration".into());
    }
    let mut total = 0_u128;
    while !text.is_empty() {
        let (part, after) = one_part(text)?;
        total = total.saturating_add(part);
        text = after;
    }
    if total > LIMIT { Err(too_long()) } else { Ok(total) }
}

/// One number with its unit, in nanoseconds, and the text after it.
fn one_part(text: &str) -> Result<(u128, &str), String> {
    let (digits, rest) = split_digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), split_digits);
    if digits.is_empty() && fraction.is_empty() {
        return Err("is not a duration".into());
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    if name.is_empty() {
        return Err("has a number without a unit".into());
    }
    let unit = unit(name).ok_or_else(|| format!("has the unknown unit {name:?}"))?;
    let whole: u64 = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| too_long())? };
    Ok((u128::from(whole) * u128::from(unit) + u128::from(fraction_of(fraction, unit)), after))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Go multiplies fractions as floating point numbers. This function does the same, so that both agree to the nanosecond.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "as Go does"
)]
fn fraction_of(digits: &str, unit: u64) -> u64 {
    let (mut value, mut scale) = (0_u64, 1_f64);
    for digit in digits.bytes() {
        // Go ignores the digits beyond 63 bits: they are worth less than a nanosecond.
        match value.checked_mul(10).and_then(|v| v.checked_add(u64::from(digit - b'0'))) {
            Some(next) if u128::from(next) < LIMIT => value = next,
            _ => break,
        }
        scale *= 10.0;
    }
    (value as f64 * (unit as f64 / scale)) as u64
}

fn unit(name: &str) -> Option<u64> {
    Some(match name {
        "ns" => 1,
        // The micro sign and the Greek letter mu look alike; Go accepts both.
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

    fn nanoseconds_of(text: &str) -> u128 {
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
            assert_eq!(nanoseconds_of(text), expected, "{text}");
        }
    }

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (seconds, text) in [(86_400, "24h0m0s"), (90, "1m30s"), (59, "59s"), (7_261, "2h1m1s")] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!(go_duration(Duration::from_millis(1_500)), "1.5s");
    }

    #[test]
    fn the_short_form_has_no_zero_components() {
        for (written, form) in [
            ("24h", "24h"),
            ("1440m", "24h"),
            ("2160h0m0s", "2160h"),
            ("90s", "1m30s"),
            ("1h0m1s", "1h1s"),
            ("1500ms", "1.5s"),
            ("1h1ns", "1h0.000000001s"),
        ] {
            assert_eq!(short_go_duration(positive(written).unwrap()), form, "{written}");
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
        fn a_printed_duration_reads_back(nanos in 1..=i64::MAX) {
            let duration = Duration::from_nanos(nanos.unsigned_abs());
            prop_assert_eq!(positive(&go_duration(duration)), Ok(duration));
            prop_assert_eq!(positive(&short_go_duration(duration)), Ok(duration));
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
