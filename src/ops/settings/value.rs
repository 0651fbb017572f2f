//! How one setting's value is written and read: sizes and durations carry their unit, so that no
//! number in a file has to be guessed.

use crate::model::Durability;
use crate::ops::logger::LevelSpec;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// What a value looks like in a TOML file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TomlKind {
    /// A string, in quotes.
    Text,
    /// A whole number.
    Integer,
    /// A number, whole or not.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A list of strings; as one text, parted by commas.
    List,
}

/// A type that a setting can have: read from text, shown as text that reads back the same.
pub trait Value: Sized {
    /// What it looks like in a TOML file.
    const TOML: TomlKind = TomlKind::Text;
    /// What is expected, with an example, for errors.
    const EXPECTED: &'static str;
    /// Reads it; `None` where the text is something else.
    fn read(text: &str) -> Option<Self>;
    /// Writes it.
    fn show(&self) -> String;
}

/// A number of bytes, written with its unit: `512B`, `64KiB`, `16MiB`, `1.5GiB` (or kB, MB, GB, TB).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ByteSize(pub u64);

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Longest first where one is the end of another ("ms" before "s").
const TIME_UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl ByteSize {
    /// So many mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory; the largest there is where it does not fit.
    pub fn len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// For people: `3.0 MiB`, `1.2 GiB`, `17 B`. Not for reading back.
    pub fn approximate(self) -> String {
        let binary = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match binary.into_iter().find(|(_, power)| self.0 >> power > 0) {
            Some((name, power)) => format!("{:.1} {name}", self.0 as f64 / (1_u64 << power) as f64),
            None => format!("{} B", self.0),
        }
    }

    /// Whether it is no bytes at all.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |unit: &&(&str, u64)| self.0 >= unit.1 && self.0.is_multiple_of(unit.1);
        match SIZE_UNITS.iter().find(whole) {
            Some((name, bytes)) => write!(f, "{}{name}", self.0 / bytes),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for ByteSize {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::read(text).ok_or(Self::EXPECTED)
    }
}

/// Splits `12.5MiB` into the digits before the point, those behind it, and the unit.
fn split_number(text: &str) -> Option<(u64, &str, &str)> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit_at);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction_is_sound = number.contains('.') != fraction.is_empty();
    (fraction_is_sound && fraction.len() <= 9).then_some(())?;
    Some((whole.parse().ok()?, fraction, unit))
}

/// `whole.fraction` units of `unit` each, where that is a whole number and fits.
fn scale(whole: u64, fraction: &str, unit: u64) -> Option<u64> {
    let below_one = if fraction.is_empty() {
        0
    } else {
        let denominator = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
        let parts = fraction.parse::<u128>().ok()? * u128::from(unit);
        parts.is_multiple_of(denominator).then(|| parts / denominator)?
    };
    whole.checked_mul(unit)?.checked_add(u64::try_from(below_one).ok()?)
}

impl Value for ByteSize {
    const EXPECTED: &'static str =
        "a size with its unit, such as \"64KiB\", \"16MiB\" or \"1.5GiB\"";

    fn read(text: &str) -> Option<Self> {
        let (whole, fraction, unit) = split_number(text)?;
        let unit = unit.trim_start();
        let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
        scale(whole, fraction, *bytes).map(Self)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Reads `500ms`, `1.5s`, `10m`, `1h30m` or `7d`; `None` for anything else, also without a unit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let (whole, fraction, tail) = split_number(rest)?;
        let unit_len = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_len);
        let (_, each) = TIME_UNITS.iter().find(|(name, _)| *name == unit)?;
        nanos = nanos.checked_add(scale(whole, fraction, *each)?)?;
        rest = next;
    }
    (!text.is_empty()).then(|| Duration::from_nanos(nanos))
}

/// Writes a duration as [`parse_duration`] reads it: the largest unit that divides it.
pub fn show_duration(duration: Duration) -> String {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let whole = |unit: &&(&str, u64)| nanos >= unit.1 && nanos.is_multiple_of(unit.1);
    match TIME_UNITS.iter().find(whole) {
        Some((name, each)) => format!("{}{name}", nanos / each),
        None => "0s".into(),
    }
}

impl Value for Duration {
    const EXPECTED: &'static str =
        "a duration with its unit, such as \"500ms\", \"10s\", \"1h30m\" or \"7d\"";

    fn read(text: &str) -> Option<Self> {
        parse_duration(text)
    }

    fn show(&self) -> String {
        show_duration(*self)
    }
}

impl Value for Option<Duration> {
    const EXPECTED: &'static str = "\"none\", or a duration with its unit, such as \"7d\"";

    fn read(text: &str) -> Option<Self> {
        if text == "none" { Some(None) } else { Duration::read(text).map(Some) }
    }

    fn show(&self) -> String {
        self.map_or_else(|| "none".into(), show_duration)
    }
}

impl Value for Option<ByteSize> {
    const EXPECTED: &'static str = "\"none\", or a size with its unit, such as \"10GiB\"";

    fn read(text: &str) -> Option<Self> {
        if text == "none" { Some(None) } else { ByteSize::read(text).map(Some) }
    }

    fn show(&self) -> String {
        self.map_or_else(|| "none".into(), |size| size.to_string())
    }
}

impl Value for u32 {
    const TOML: TomlKind = TomlKind::Integer;
    const EXPECTED: &'static str = "a whole number";

    fn read(text: &str) -> Option<Self> {
        text.replace('_', "").parse().ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for f64 {
    const TOML: TomlKind = TomlKind::Number;
    const EXPECTED: &'static str = "a number";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number: &f64| number.is_finite())
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Value for bool {
    const TOML: TomlKind = TomlKind::Boolean;
    const EXPECTED: &'static str = "true or false";

    fn read(text: &str) -> Option<Self> {
        match text {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn read(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::from(text))
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for Option<PathBuf> {
    const EXPECTED: &'static str = "\"none\", or a path";

    fn read(text: &str) -> Option<Self> {
        if text == "none" { Some(None) } else { PathBuf::read(text).map(Some) }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "none".into(), Value::show)
    }
}

/// An address of the form `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(Box<str>);

impl Url {
    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Option<Url> {
    const EXPECTED: &'static str = "\"none\", or an address without user and password, such as \
        \"http://127.0.0.1:4317\"";

    fn read(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(None);
        }
        let uri: http::Uri = text.parse().ok()?;
        // Settings are shown, logged and written to crash reports: none may hold a secret.
        let names_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        let is_http = uri.scheme_str() == Some("http");
        (is_http && !names_user && uri.host().is_some_and(|host| !host.is_empty()))
            .then(|| Some(Url(text.into())))
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "none".into(), |url| url.0.to_string())
    }
}

impl Value for String {
    const EXPECTED: &'static str = "a text that is not empty";

    fn read(text: &str) -> Option<Self> {
        (!text.is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

/// Names, with commas between them where they are one text.
impl Value for Vec<String> {
    const TOML: TomlKind = TomlKind::List;
    const EXPECTED: &'static str = "a list of names";

    fn read(text: &str) -> Option<Self> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let sound = |part: &str| !part.contains(|c: char| c.is_control() || c == '"');
        parts.map(|part| sound(part).then(|| part.to_owned())).collect()
    }

    fn show(&self) -> String {
        self.join(",")
    }
}

impl Value for Option<String> {
    const EXPECTED: &'static str = "\"none\", or a name of letters, digits, '.', '_' and '-'";

    fn read(text: &str) -> Option<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match text {
            "none" => return Some(None),
            "." | ".." => return None,
            _ => {}
        }
        ((1..=63).contains(&text.len()) && text.chars().all(allowed)).then(|| Some(text.into()))
    }

    fn show(&self) -> String {
        self.clone().unwrap_or_else(|| "none".into())
    }
}

impl Value for SocketAddr {
    const EXPECTED: &'static str =
        "an address with a port, such as \"127.0.0.1:8400\", \"[::1]:8400\" or \"localhost:0\"";

    fn read(text: &str) -> Option<Self> {
        if let Some(port) = text.strip_prefix("localhost:") {
            return Some(Self::from((Ipv4Addr::LOCALHOST, port.parse().ok()?)));
        }
        text.parse().ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Durability {
    const EXPECTED: &'static str = "fsync, interval or os";

    fn read(text: &str) -> Option<Self> {
        [Self::Fsync, Self::Interval, Self::Os].into_iter().find(|level| level.name() == text)
    }

    fn show(&self) -> String {
        self.name().into()
    }
}

/// What a line of diagnostics looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// `key=value` pairs.
    Logfmt,
}

impl Value for LogFormat {
    const EXPECTED: &'static str = "auto, text, json or logfmt";

    fn read(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            "logfmt" => Some(Self::Logfmt),
            _ => None,
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
            Self::Logfmt => "logfmt",
        }
        .into()
    }
}

impl Value for LevelSpec {
    const EXPECTED: &'static str = "a level and patterns, such as \"info\" or \
        \"info,partitions/*/log:trace\" (levels: trace, debug, info, warning, error, critical, off)";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}
