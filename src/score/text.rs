//! The score as text, for command lines, files and labels.
//!
//! ```text
//! score = "plain" | term { "+" term }
//! term  = name [ ":" name "=" value { "," name "=" value } ]
//! ```

use super::fields::{Fields, NAMES, Written};
use super::{Alibi, Bias, Buckets, Dropout, Relative, Score, Segments, Sinks, Softcap, Temperature, Term};
use crate::names::nearest_first;
use crate::{Error, Result};
use std::fmt::{Display, Formatter};
use std::str::FromStr;

impl Score {
    fn add(self, text: &str) -> Result<Self, String> {
        let fields = Fields::read(text)?;
        let twice = |name: &str| format!("`{name}` given twice");
        let term: Term = match fields.term {
            "scale" => {
                fields.only(&["factor"])?;
                let factor = fields.need("factor", "a number")?;
                return if self.scale.is_none() { Ok(self.scale(factor)) } else { Err(twice("scale")) };
            }
            "relative" => Relative::read(&fields)?.into(),
            "segments" => fields.only(&[]).map(|()| Segments.into())?,
            "temperature" => fields.only(&[]).map(|()| Temperature.into())?,
            "softcap" => Softcap::read(&fields)?.into(),
            "alibi" => Alibi::read(&fields)?.into(),
            "buckets" => Buckets::read(&fields)?.into(),
            "bias" | "second_bias" => Bias::read(&fields)?.into(),
            "sinks" => fields.only(&[]).map(|()| Sinks.into())?,
            "dropout" => Dropout::read(&fields)?.into(),
            "" => return Err("expected a term".into()),
            "plain" => return Err("`plain` stands alone: it has no terms and no parameters".into()),
            name => {
                let known = nearest_first(name, NAMES);
                return Err(format!("no term is called `{name}`: {known} are known"));
            }
        };
        if self.term(term.name()).is_some() { Err(twice(term.name())) } else { Ok(self.with(term)) }
    }
}

/// `plain`, or `scale:factor=1 + buckets:count=32,max_distance=128,bidirectional=true`: terms in any order, joined by `+`.
///
/// | term | parameters (those with a value may be left out) |
/// |---|---|
/// | `scale` | `factor` |
/// | `relative` | `first_distance`, `rows`, `u=false`, `w=false`, `clip=false`; `offset`, `batch`, `head`, `row`: the strides of r, `[H, R, d]` without them |
/// | `segments` | |
/// | `temperature` | |
/// | `softcap` | `cap` |
/// | `alibi` | `slopes=paper`, `bloom`, `mpt` or `given`; `symmetric=false` |
/// | `buckets` | `count`, `max_distance`, `bidirectional=false` |
/// | `bias`, `second_bias` | `offset=0`, `batch=0`, `head=0`, `query=0`, `key=0` |
/// | `sinks` | |
/// | `dropout` | `rate`, `seed=0` |
///
/// ```
/// use wgpu_attention::{Alibi, Score, Slopes};
/// let score: Score = "alibi:slopes=bloom + softcap:cap=50".parse()?;
/// assert_eq!(score, Score::new().softcap(50.0).with(Alibi::new(Slopes::Bloom)));
/// assert_eq!(score.to_string(), "softcap:cap=50 + alibi:slopes=bloom");
/// let error = "softcap:cpa=50".parse::<Score>().unwrap_err().to_string();
/// assert!(error.contains("`softcap` has no parameter `cpa`: `cap` are known"), "{error}");
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
impl FromStr for Score {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.trim() == "plain" {
            return Ok(Self::new());
        }
        terms(text).into_iter().try_fold(Self::new(), Self::add).map_err(|why| {
            let need = format!("a score, as `softcap:cap=50 + alibi:slopes=bloom` ({why})");
            Error::argument("score", need, format!("`{text}`"))
        })
    }
}

/// What `+` joins; that of an exponent, as in `1e+6`, joins nothing.
fn terms(text: &str) -> Vec<&str> {
    let ends = text.match_indices('+').map(|(at, _)| at).filter(|&at| {
        let digits = text[..at].strip_suffix(['e', 'E']).and_then(|number| number.chars().last());
        let exponent = text[at + 1..].starts_with(|c: char| c.is_ascii_digit());
        !(exponent && digits.is_some_and(|c| c.is_ascii_digit() || c == '.'))
    });
    let mut first = 0;
    let mut found: Vec<_> = ends.map(|end| &text[std::mem::replace(&mut first, end + 1)..end]).collect();
    found.push(&text[first..]);
    found
}

/// As [`from_str`](Self::from_str) reads it, but for terms of the caller's own.
impl Display for Score {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let scale = self.scale.map(|scale| ("scale", Written::default().with("factor", scale)));
        let terms = self.rules().map(|rule| (rule.name(), rule.fields()));
        let mut separator = "";
        for (name, Written(fields)) in scale.into_iter().chain(terms) {
            write!(f, "{separator}{name}")?;
            for (n, (name, value)) in fields.iter().enumerate() {
                write!(f, "{}{name}={value}", if n == 0 { ':' } else { ',' })?;
            }
            separator = " + ";
        }
        if separator.is_empty() { f.write_str("plain") } else { Ok(()) }
    }
}

/// As its text.
#[cfg(feature = "serde")]
impl serde::Serialize for Score {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From its text.
#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Score {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BiasStrides, Slopes, Strides};

    #[test]
    fn what_is_written_is_read() {
        let relative = Relative::new(-3, 20);
        for score in [
            Score::new(),
            Score::new().scale(1.0),
            Score::new().scale(-1e-30).with(Temperature),
            Score::new().softcap(30.5).alibi().with(Sinks),
            Score::new().with(Sinks).dropout(0.1, u64::MAX),
            Score::new().dropout(1e-9, 0),
            Score::new().with(Alibi::new(Slopes::Mpt).symmetric(true)),
            Score::new().with(Alibi::new(Slopes::Given)),
            Score::new().with(Buckets::new(32, 128).bidirectional(true)),
            Score::new().with(relative),
            Score::new().with(relative.u(true).w(true).clip(true)),
            Score::new().with(relative.strides(Strides::new(0, 0, 64))),
            Score::new().bias(BiasStrides::toeplitz(5, 7)),
            Score::new().bias(BiasStrides::default()),
            Score::new()
                .with(Bias::second(BiasStrides::toeplitz(5, 7)))
                .bias(BiasStrides::broadcast([1, 1, 5, 7])),
        ] {
            let text = score.to_string();
            assert_eq!(text.parse::<Score>().as_ref(), Ok(&score), "{text}");
            #[cfg(feature = "serde")]
            {
                let json = serde_json::to_string(&score).unwrap();
                assert_eq!(json, format!("\"{text}\""));
                assert_eq!(serde_json::from_str::<Score>(&json).unwrap(), score);
            }
        }
        let spaced = " buckets : count = 8 , max_distance=20+ scale:factor=1 ".parse::<Score>();
        assert_eq!(spaced, Ok(Score::new().scale(1.0).with(Buckets::new(8, 20))));
        let exponents = "softcap:cap=1e+6+scale:factor=2.E+1 +sinks".parse::<Score>();
        assert_eq!(exponents, Ok(Score::new().softcap(1e6).scale(20.0).with(Sinks)));
    }

    #[test]
    fn bad_texts_are_named() {
        for (text, why) in [
            ("", "expected a term"),
            ("softcap:cap=3 +", "expected a term"),
            ("plain + alibi", "`plain` stands alone"),
            ("softcap:cap=1e+", "need a number, got `1e`"),
            ("soft_cap:cap=3", "no term is called `soft_cap`: `softcap`, "),
            ("ALIBI", "no term is called `ALIBI`: `alibi`, "),
            ("alibi:slope=bloom", "`alibi` has no parameter `slope`: `slopes`, `symmetric` are known"),
            ("alibi:slopes=steep", "`slopes` of `alibi`: need paper, bloom, mpt or given, got `steep`"),
            ("alibi:symmetric=1", "`symmetric` of `alibi`: need true or false, got `1`"),
            ("softcap", "`softcap` needs `cap`, a number"),
            ("softcap:cap", "expected `name=value` at `cap`"),
            ("softcap:cap=3,cap=4", "`cap` given twice"),
            ("sinks + sinks", "`sinks` given twice"),
            ("scale:factor=1 + scale:factor=2", "`scale` given twice"),
            ("buckets:count=-1,max_distance=4", "`count` of `buckets`: need a whole number, got `-1`"),
            ("dropout:seed=3", "`dropout` needs `rate`, a number"),
            ("dropout:rate=0.1,seed=-3", "`seed` of `dropout`: need a whole number, got `-3`"),
            ("temperature:per=head", "`temperature` has no parameters, not `per`"),
            ("bias:keys=1", "`bias` has no parameter `keys`: `key`, "),
        ] {
            let error = text.parse::<Score>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
            assert!(error.ends_with(&format!("got `{text}`")), "{error}");
        }
    }
}
