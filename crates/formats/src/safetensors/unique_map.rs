//! JSON objects in which no key may appear twice.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// The pairs of a JSON object, sorted by key.
///
/// An ordinary map would keep the last of several equal keys, and so let a file show different contents to different
/// readers.
#[derive(Debug)]
pub struct UniqueMap<V>(pub Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Pairs(PhantomData))
    }
}

struct Pairs<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Pairs<V> {
    type Value = UniqueMap<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value().map_err(|error| Error::custom(format_args!("`{key}`: {error}")))?;
            pairs.push((key, value));
        }
        sort_unique(&mut pairs, |pair| &pair.0).map_err(|key| Error::custom(format_args!("`{key}` appears twice")))?;
        Ok(UniqueMap(pairs))
    }
}

/// Sorts by key; `Err` is a key that appears twice.
pub fn sort_unique<T>(items: &mut [T], key: impl Fn(&T) -> &String) -> Result<(), String> {
    items.sort_unstable_by(|a, b| key(a).cmp(key(b)));
    match items.windows(2).find(|pair| key(&pair[0]) == key(&pair[1])) {
        Some(pair) => Err(key(&pair[0]).clone()),
        None => Ok(()),
    }
}
