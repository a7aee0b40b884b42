//! What a checkpoint's `config.json` says about quantisation.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Mode, Quantization};
use crate::FormatError;

/// The `quantization` section of `config.json`: a layout for all layers and exceptions by name.
///
/// A layer is quantised when it has scales in the checkpoint; this section only says how. A layer that is excepted with `false` is
/// not quantised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantizationConfig {
    /// Layout of every layer without an exception.
    pub default: Quantization,
    /// Exceptions, sorted by name; `None` for a layer that is not quantised.
    overrides: Vec<(String, Option<Quantization>)>,
}

impl QuantizationConfig {
    /// Reads a whole `config.json`; `None` where it has no `quantization`.
    ///
    /// Values of MLX are `group_size`, `bits` and `mode` (`affine` where absent); every other key is the path of a layer, with an
    /// object of the same values, `true` for the layout of all, or `false`. Other values are ignored. A Hugging Face
    /// `quantization_config` is not read: its layouts are others.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] for broken JSON, layers that appear twice, and layouts that MLX does not have.
    pub fn parse(config: &[u8]) -> Result<Option<QuantizationConfig>, FormatError> {
        #[derive(Deserialize)]
        struct Config {
            quantization: Option<QuantizationConfig>,
        }
        let config: Config = serde_json::from_slice(config)
            .map_err(|error| FormatError::Malformed { format: "mlx config", message: error.to_string() })?;
        Ok(config.quantization)
    }

    /// Layout of the layer with this path (`model.layers.0.mlp.up_proj`); `None` when it is not quantised.
    pub fn layer(&self, path: &str) -> Option<Quantization> {
        match self.overrides.binary_search_by(|(name, _)| name.as_str().cmp(path)) {
            Ok(found) => self.overrides[found].1,
            Err(_) => Some(self.default),
        }
    }

    /// Layers with an exception, sorted by name.
    pub fn overrides(&self) -> impl ExactSizeIterator<Item = (&str, Option<Quantization>)> {
        self.overrides.iter().map(|(name, layout)| (name.as_str(), *layout))
    }
}

/// The values that describe a layout. For what is left out MLX takes the defaults of the mode, in exceptions too.
#[derive(Clone, Default)]
struct Values {
    group_size: Option<u32>,
    bits: Option<u32>,
    mode: Option<Mode>,
}

impl Values {
    fn layout<E: Error>(&self) -> Result<Quantization, E> {
        let mode = self.mode.unwrap_or(Mode::Affine);
        let (bits, group_size) = mode.defaults();
        Quantization::new(mode, self.bits.unwrap_or(bits), self.group_size.unwrap_or(group_size))
            .map_err(|error| E::custom(error))
    }
}

/// One entry of the section.
enum Entry {
    Number(u64),
    Text(String),
    Flag(bool),
    Layer(Values),
    Null,
    Ignored,
}

impl<'de> Deserialize<'de> for QuantizationConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Section;
        impl<'de> Visitor<'de> for Section {
            type Value = QuantizationConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with `group_size` and `bits`")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let mut layers = Vec::new();
                let values = read_values(map, |name, entry| layers.push((name, entry)))?;
                let default = values.layout()?;
                let mut overrides = Vec::new();
                for (name, entry) in layers {
                    let layout = match entry {
                        Entry::Flag(false) => None,
                        Entry::Flag(true) => Some(default),
                        Entry::Layer(values) => Some(values.layout().map_err(|error: A::Error| within(&name, error))?),
                        Entry::Number(_) | Entry::Text(_) | Entry::Null | Entry::Ignored => continue,
                    };
                    overrides.push((name, layout));
                }
                overrides.sort_unstable_by(|a, b| a.0.cmp(&b.0));
                if let Some(pair) = overrides.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                    return Err(Error::custom(format_args!("layer `{}` appears twice", pair[0].0)));
                }
                Ok(QuantizationConfig { default, overrides })
            }
        }
        deserializer.deserialize_map(Section)
    }
}

fn within<E: Error>(name: &str, error: E) -> E {
    E::custom(format_args!("`{name}`: {error}"))
}

/// The values of an object; every other entry goes to `other`.
fn read_values<'de, A: MapAccess<'de>>(mut map: A, mut other: impl FnMut(String, Entry)) -> Result<Values, A::Error> {
    let mut values = Values::default();
    while let Some(key) = map.next_key::<String>()? {
        let entry: Entry = map.next_value().map_err(|error| within(&key, error))?;
        let repeated = match (key.as_str(), &entry) {
            ("group_size", &Entry::Number(size)) => values.group_size.replace(narrow(&key, size)?).is_some(),
            ("bits", &Entry::Number(bits)) => values.bits.replace(narrow(&key, bits)?).is_some(),
            ("mode", Entry::Text(name)) => {
                let mode = Mode::from_name(name).ok_or_else(|| {
                    Error::custom(format_args!("`mode` is `{name}`, one of affine, mxfp4, mxfp8 and nvfp4 is needed"))
                })?;
                values.mode.replace(mode).is_some()
            }
            // MLX's recipes of mixed bits write what they were not given.
            ("group_size" | "bits" | "mode", Entry::Null) => continue,
            ("group_size" | "bits", _) => return Err(within(&key, Error::custom("a whole number is needed"))),
            ("mode", _) => return Err(within(&key, Error::custom("a string is needed"))),
            ("global_scale", Entry::Flag(true)) => {
                return Err(within(&key, Error::custom("scales of whole tensors are not supported")));
            }
            _ => {
                other(key, entry);
                continue;
            }
        };
        if repeated {
            return Err(Error::custom(format_args!("`{key}` appears twice")));
        }
    }
    Ok(values)
}

fn narrow<E: Error>(key: &str, number: u64) -> Result<u32, E> {
    u32::try_from(number).map_err(|_| E::custom(format_args!("`{key}` is {number}, far too large")))
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Entry, E> {
                Ok(Entry::Number(number))
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<Entry, E> {
                Ok(Entry::Ignored)
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Entry, E> {
                Ok(Entry::Ignored)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Entry, E> {
                Ok(Entry::Text(text.to_owned()))
            }

            fn visit_bool<E: Error>(self, flag: bool) -> Result<Entry, E> {
                Ok(Entry::Flag(flag))
            }

            fn visit_unit<E: Error>(self) -> Result<Entry, E> {
                Ok(Entry::Null)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Entry, A::Error> {
                while sequence.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Entry::Ignored)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                read_values(map, |_, _| {}).map(Entry::Layer)
            }
        }
        deserializer.deserialize_any(Any)
    }
}
