//! Numbers as Java reads them from a text: `Integer.valueOf`, `Long.valueOf` and `Double.valueOf`.

use super::value::NotComparable;

/// The zeros of the decimal digits other than ASCII's that `Character.digit` knows (JDK 17): nine more follow each. Those beyond 16 bits are
/// none to it, for it is given halves of them.
const ZEROS: [u32; 36] = [
    0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6, 0x0D66, 0x0DE6, 0x0E50,
    0x0ED0, 0x0F20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40, 0x1C50,
    0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10,
];

/// `Integer.valueOf` and `Long.valueOf`: a sign, and decimal digits of any script.
pub(super) fn whole<T: std::str::FromStr>(text: &str) -> Result<T, NotComparable> {
    if text.is_ascii() {
        return text.parse().map_err(|_| NotComparable);
    }
    let digits: Option<String> = text.chars().map(digit_or_sign).collect();
    digits.and_then(|digits| digits.parse().ok()).ok_or(NotComparable)
}

fn digit_or_sign(character: char) -> Option<char> {
    if character.is_ascii() {
        return Some(character);
    }
    let code = u32::from(character);
    let zero = ZEROS.get(ZEROS.partition_point(|zero| *zero <= code).checked_sub(1)?)?;
    char::from_digit(code - zero, 10)
}

/// `Double.valueOf`: blanks around it, a sign, `NaN`, `Infinity`, hexadecimal digits with a binary exponent, and a type's letter behind
/// it are allowed.
pub(super) fn double(text: &str) -> Result<f64, NotComparable> {
    let text = text.trim_matches(|character| character <= ' ');
    let (sign, number) = match text.as_bytes().first() {
        Some(b'-') => (-1.0, &text[1..]),
        Some(b'+') => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    let magnitude = match number {
        "NaN" => f64::NAN,
        "Infinity" => f64::INFINITY,
        _ => {
            let digits = number.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(number);
            // Rust reads `inf` and `nan` too, and a second sign.
            if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
                return Err(NotComparable);
            }
            match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
                Some(digits) => hexadecimal(digits).ok_or(NotComparable)?,
                None => digits.parse().map_err(|_| NotComparable)?,
            }
        }
    };
    Ok(sign * magnitude)
}

/// What stands behind the `0x`: `1.8p1` is 3.
fn hexadecimal(digits: &str) -> Option<f64> {
    /// More bits than the nearest double depends on, but for whether any of the rest is set.
    const ENOUGH: u32 = 120;
    let (mantissa, exponent) = digits.split_once(['p', 'P'])?;
    let (whole, fraction) = match mantissa.split_once('.') {
        // A point alone is not enough, and one at the end is none too few.
        Some(("", "")) => return None,
        Some(parts) => parts,
        None => (mantissa, ""),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (mut bits, mut exponent) = (0_u128, exponent_of(exponent)?);
    for (is_fraction, digit) in
        whole.chars().map(|digit| (false, digit)).chain(fraction.chars().map(|digit| (true, digit)))
    {
        let digit = u128::from(digit.to_digit(16)?);
        if bits.checked_ilog2().is_some_and(|highest| highest >= ENOUGH) {
            bits |= u128::from(digit > 0);
            exponent = exponent.saturating_add(if is_fraction { 0 } else { 4 });
        } else {
            bits = bits << 4 | digit;
            exponent = exponent.saturating_sub(if is_fraction { 4 } else { 0 });
        }
    }
    Some(nearest(bits, exponent))
}

/// A sign and digits; what is beyond all numbers stays there.
fn exponent_of(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(sign * digits.parse().unwrap_or(i64::MAX / 2))
}

/// The double nearest to `bits` times two to the power of `exponent`, the even one of two.
fn nearest(bits: u128, exponent: i64) -> f64 {
    let Some(highest) = bits.checked_ilog2() else { return 0.0 };
    let highest_exponent = i64::from(highest).saturating_add(exponent);
    if highest_exponent > 1023 {
        return f64::INFINITY;
    }
    // Below the normal numbers there are fewer bits, one less for each power of two.
    let kept_bits = (53 + (highest_exponent + 1022).min(0)).max(-1);
    let dropped = i64::from(highest) + 1 - kept_bits;
    if dropped > 127 || kept_bits < 0 {
        return 0.0;
    }
    let (kept, exponent) = if dropped <= 0 {
        (bits, exponent)
    } else {
        let (kept, rest, half) = (bits >> dropped, bits & ((1 << dropped) - 1), 1_u128 << (dropped - 1));
        let rounds_up = rest > half || (rest == half && kept & 1 == 1);
        (kept + u128::from(rounds_up), exponent + dropped)
    };
    // At most 53 bits, and a double again after each step.
    let mut value = kept as f64;
    let mut left = exponent;
    while left != 0 {
        let step = left.clamp(-1000, 1000);
        value *= f64::from_bits(((step + 1023) as u64) << 52);
        left -= step;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_read_as_java_reads_them() {
        for (text, value) in [
            ("1", 1.0),
            (" 1.5\t", 1.5),
            ("+1.", 1.0),
            ("-.5", -0.5),
            ("1e3", 1000.0),
            ("1E+3d", 1000.0),
            ("2f", 2.0),
            ("1e999", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
        ] {
            assert_eq!(double(text), Ok(value), "{text}");
        }
        assert!(double("-NaN").unwrap().is_nan());
        for text in
            ["", " ", "a", "inf", "nan", "infinity", "1e", ".", "--1", "+-1", "1_0", "1 0", "d", "1dd", "\u{a0}1", "٣"]
        {
            assert_eq!(double(text), Err(NotComparable), "{text:?}");
        }
    }

    /// What `Double.doubleToRawLongBits` of JDK 17 says.
    #[test]
    fn hexadecimal_doubles_are_read_as_java_reads_them() {
        for (text, bits) in [
            ("0x1p0", 0x3ff0_0000_0000_0000),
            (" 0x1.8p1 ", 0x4008_0000_0000_0000),
            ("-0X.8P-2f", 0xbfc0_0000_0000_0000),
            ("0x1.p3", 0x4020_0000_0000_0000),
            ("0xAbCdEfp-12D", 0x40a5_79bd_e000_0000),
            ("0x1p1024", 0x7ff0_0000_0000_0000),
            ("0x1.fffffffffffff7p1023", 0x7fef_ffff_ffff_ffff),
            ("0x1.fffffffffffff8p1023", 0x7ff0_0000_0000_0000),
            ("0x1.00000000000008p0", 0x3ff0_0000_0000_0000),
            ("0x1.000000000000080000000000000000000000000000000001p0", 0x3ff0_0000_0000_0001),
            ("0x1.00000000000018p0", 0x3ff0_0000_0000_0002),
            ("0x1.fffffffffffff7ffffffffffffffffffffffffffffffffffp0", 0x3fff_ffff_ffff_ffff),
            ("0x00000000000000000000000000000000000000000000000000.1p4", 0x3ff0_0000_0000_0000),
            ("0x10000000000000000000000000000000000000000000001p0", 0x4b70_0000_0000_0000),
            ("0x1p-1074", 1),
            ("0x1.8p-1074", 2),
            ("0x1p-1075", 0),
            ("0x1.8p-1075", 1),
            ("0x1.0000000000001p-1075", 1),
            ("0x1p-1076", 0),
            ("0x0.8p-1022", 0x0008_0000_0000_0000),
            ("0x1.fffffffffffffp-1023", 0x0010_0000_0000_0000),
            ("0x0.0000000000000fffffffffffff8p-1000", 0x0040_0000),
            ("0x1p99999999999999999999", 0x7ff0_0000_0000_0000),
            ("0x1p-99999999999999999999", 0),
            ("-0x0.0p5", 0x8000_0000_0000_0000),
        ] {
            assert_eq!(double(text).map(f64::to_bits), Ok(bits), "{text}");
        }
        for text in [
            "0x",
            "0x1",
            "0x.p1",
            "0xp1",
            "0x1p",
            "0x1p+-1",
            "0x1p1x",
            "0x1p1ff",
            "0x1.2.3p1",
            "0xgp1",
            "x1p1",
            "0x1p٣",
        ] {
            assert_eq!(double(text), Err(NotComparable), "{text:?}");
        }
    }

    #[test]
    fn whole_numbers_may_have_digits_of_any_script() {
        for (text, value) in
            [("٣", 3), ("-४२", -42), ("１２", 12), ("+১", 1), ("1२", 12), ("-９223372036854775808", i64::MIN)]
        {
            assert_eq!(whole::<i64>(text), Ok(value), "{text}");
        }
        for text in ["𝟏", "१a", "٣ ", "ü", "²", "９223372036854775808", "-", "१-", "\u{65f}", "\u{66a}"] {
            assert_eq!(whole::<i64>(text), Err(NotComparable), "{text}");
        }
        assert_eq!(whole::<i32>("२147483648"), Err(NotComparable));
    }
}
