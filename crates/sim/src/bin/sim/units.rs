//! Sizes, rates and times as people write them.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// Bytes: `64MiB`, `3GB`, `512`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bytes(pub u64);

/// Bits a second: `200Mbit/s`, `300MB/s`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(pub f64);

/// A time: `200us`, `1s`, `24h`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Time(pub Duration);

/// The number before the unit, and the unit.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let unit = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..unit].parse().ok()?;
    Some((number, text[unit..].trim()))
}

fn factor(prefix: &str) -> Option<f64> {
    Some(match prefix {
        "" => 1.0,
        "k" | "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1048576.0,
        "Gi" => 1073741824.0,
        "Ti" => 1099511627776.0,
        _ => return None,
    })
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no size: write 64MiB or 3GB");
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let prefix = unit.strip_suffix('B').unwrap_or(unit);
        let bytes = number * factor(prefix).ok_or_else(wrong)?;
        if bytes < 1.0 {
            return Err(wrong());
        }
        Ok(Self(bytes as u64))
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no rate: write 200Mbit/s or 300MB/s");
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let unit = unit.strip_suffix("/s").ok_or_else(wrong)?;
        let (prefix, bits) = match unit.strip_suffix("bit") {
            Some(prefix) => (prefix, 1.0),
            None => (unit.strip_suffix('B').ok_or_else(wrong)?, 8.0),
        };
        let rate = number * bits * factor(prefix).ok_or_else(wrong)?;
        if rate <= 0.0 {
            return Err(wrong());
        }
        Ok(Self(rate))
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_| format!("`{text}` is no time: write 200us, 1s or 24h"))
    }
}

struct Text<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = String>> de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quantity with its unit, in quotes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! read {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_str(Text(std::marker::PhantomData))
            }
        }
    )*};
}
read!(Bytes, Rate, Time);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_and_nonsense_is_named() {
        assert_eq!("64MiB".parse(), Ok(Bytes(64 << 20)));
        assert_eq!("1.5GB".parse(), Ok(Bytes(1_500_000_000)));
        assert_eq!("200Mbit/s".parse(), Ok(Rate(200e6)));
        assert_eq!("300MB/s".parse(), Ok(Rate(2.4e9)));
        assert!("300MB".parse::<Rate>().is_err_and(|e| e.contains("300MB")));
        assert!("64 apples".parse::<Bytes>().is_err());
        assert!("soon".parse::<Time>().is_err_and(|e| e.contains("soon")));
    }
}
