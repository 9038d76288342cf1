//! Pieces of JSON that several patterns read.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// A cell of a mask or layout: 0, 1, `false` or `true`, written as 0 or 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bit(pub(super) bool);

impl Serialize for Bit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0.into())
    }
}

impl<'de> Deserialize<'de> for Bit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

/// Keys that an end of a window reaches: a number, or -1 for no end, as FlashAttention has it.
pub(super) mod reach {
    use super::{Deserializer, Serializer, de, fmt};

    pub(in crate::pattern) fn serialize<S: Serializer>(
        reach: &usize,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if *reach == usize::MAX {
            serializer.serialize_i64(-1)
        } else {
            serializer.serialize_u64(*reach as u64)
        }
    }

    pub(in crate::pattern) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<usize, D::Error> {
        struct Reach;

        impl de::Visitor<'_> for Reach {
            type Value = usize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of keys, or -1 for no end")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<usize, E> {
                // What no `usize` holds is no end, either.
                Ok(usize::try_from(value).unwrap_or(usize::MAX))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<usize, E> {
                match u64::try_from(value) {
                    Ok(value) => self.visit_u64(value),
                    Err(_) if value == -1 => Ok(usize::MAX),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(value), &self)),
                }
            }
        }

        deserializer.deserialize_any(Reach)
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = Bit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0, 1, false or true")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Bit, E> {
        Ok(Bit(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Bit, E> {
        match value {
            0 | 1 => Ok(Bit(value == 1)),
            _ => Err(E::invalid_value(de::Unexpected::Unsigned(value), &self)),
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Bit, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(value), &self)),
        }
    }
}
