//! Types out of a tree. Comes in: a [`Node`] and what is wanted of it by serde; goes out: that, or a
//! [`Mistake`] with its place, the way there, what is allowed, and what may have been meant.

use serde::{
    de::{
        self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected,
        IntoDeserializer, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
    },
    forward_to_deserialize_any,
};

use super::{
    place::{Mistake, Step, any_of, closest},
    tree::{Content, Node, Scalar},
};

/// Reads a type from a tree.
pub fn from_tree<T: DeserializeOwned>(root: &Node) -> Result<T, Mistake> {
    T::deserialize(Reader(root)).map_err(|mistake| mistake.of(root))
}

impl de::Error for Mistake {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::at(&[], [] as [Step; 0], message.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let what = match unexpected {
            Unexpected::Str(text) => format!("`{text}`"),
            Unexpected::Bool(truth) => format!("`{truth}`"),
            Unexpected::Unsigned(number) => format!("`{number}`"),
            Unexpected::Signed(number) => format!("`{number}`"),
            Unexpected::Float(number) => format!("`{number}`"),
            Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a map".to_owned(),
            other => other.to_string(),
        };
        // What serde calls the types of numbers says nothing to most.
        let expected = match expected.to_string() {
            number if number.starts_with(['u', 'i']) && number.len() <= 5 => {
                "a whole number".to_owned()
            }
            number if number == "f64" => "a number".to_owned(),
            block if block.starts_with("struct ") => "a map of keys".to_owned(),
            other => other,
        };
        Self::custom(format!("this is {what}, expected {expected}"))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::unknown(field, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let meant = match closest(variant, expected) {
            Some(meant) => format!("; did you mean `{meant}`?"),
            None => String::new(),
        };
        Self::custom(format!("`{variant}` is not known here, expected {}{meant}", any_of(expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("missing field `{field}`"))
    }
}

/// A node as serde asks it.
struct Reader<'a>(&'a Node);

impl Reader<'_> {
    /// The text of a scalar that is not nothing.
    fn text(&self) -> Option<&str> {
        let text = self.0.text().filter(|_| !self.0.is_null());
        let original = self.0.expanded.as_ref().and_then(|expanded| expanded.original.as_deref());
        original.or(text)
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        let read = match &self.0.content {
            Content::Scalar { .. } => match self.0.scalar().unwrap_or(Scalar::Null) {
                Scalar::Null => visitor.visit_unit(),
                Scalar::Bool(truth) => visitor.visit_bool(truth),
                Scalar::Unsigned(number) => visitor.visit_u64(number),
                Scalar::Signed(number) => visitor.visit_i64(number),
                Scalar::Float(number) => visitor.visit_f64(number),
                Scalar::Text(text) => visitor.visit_str(text),
            },
            Content::List(list) => visitor.visit_seq(List(list.iter().enumerate(), list.len())),
            Content::Map(pairs) => visitor.visit_map(Map { pairs: pairs.iter(), value: None }),
        };
        read.map_err(|mistake| mistake.of(self.0))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.0.is_null() {
            true => visitor.visit_none(),
            false => visitor.visit_some(self),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.text() {
            Some(text) => visitor.visit_str(text).map_err(|mistake: Mistake| mistake.of(self.0)),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_str(visitor)
    }

    /// A block with nothing behind its name is all defaults, as in the Collector.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match self.0.is_null() {
            true => visitor
                .visit_map(Map { pairs: [].iter(), value: None })
                .map_err(|mistake| mistake.of(self.0)),
            false => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        let access = match (&self.0.content, self.text()) {
            (_, Some(text)) => visitor.visit_enum(text.into_deserializer()),
            (Content::Map(pairs), _) if pairs.len() == 1 => visitor.visit_enum(Choice(&pairs[0])),
            (content, _) => {
                let what = match content {
                    Content::Scalar { .. } => Unexpected::Unit,
                    Content::List(_) => Unexpected::Seq,
                    Content::Map(_) => Unexpected::Map,
                };
                Err(Mistake::invalid_type(what, &"one word"))
            }
        };
        access.map_err(|mistake: Mistake| mistake.of(self.0))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char bytes byte_buf unit unit_struct seq tuple
        tuple_struct map
    }
}

/// Elements that are still to be read, and how many there are.
struct List<'a>(std::iter::Enumerate<std::slice::Iter<'a, Node>>, usize);

impl<'de> SeqAccess<'de> for List<'_> {
    type Error = Mistake;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Mistake> {
        let next = self.0.by_ref().find(|(_, node)| !node.is_gone());
        let Some((index, node)) = next else { return Ok(None) };
        let read = seed.deserialize(Reader(node)).map(Some);
        read.map_err(|mistake| mistake.of(node).below(index.into()))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.1)
    }
}

/// Pairs that are still to be read.
struct Map<'a> {
    pairs: std::slice::Iter<'a, (Node, Node)>,
    value: Option<&'a (Node, Node)>,
}

impl<'de> MapAccess<'de> for Map<'_> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Mistake> {
        let next = self.pairs.by_ref().find(|(_, value)| !value.is_gone());
        let Some(pair) = next else { return Ok(None) };
        self.value = Some(pair);
        seed.deserialize(Reader(&pair.0)).map(Some).map_err(|mistake| mistake.of_key(&pair.0))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Mistake> {
        let Some((key, node)) = self.value.take() else {
            return Err(Mistake::custom("a value without its key"));
        };
        let key = Step::from(key.text().unwrap_or_default());
        seed.deserialize(Reader(node)).map_err(|mistake| mistake.of(node).below(key))
    }
}

/// A map of one key, which says what the value is.
#[derive(Clone, Copy)]
struct Choice<'a>(&'a (Node, Node));

impl<'a, 'de> EnumAccess<'de> for Choice<'a> {
    type Error = Mistake;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Mistake> {
        let read = seed.deserialize(Reader(&self.0.0));
        read.map(|variant| (variant, self)).map_err(|mistake| mistake.of(&self.0.0))
    }
}

impl Choice<'_> {
    fn below(&self, mistake: Mistake) -> Mistake {
        mistake.of(&self.0.1).below(Step::from(self.0.0.text().unwrap_or_default()))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = Mistake;

    fn unit_variant(self) -> Result<(), Mistake> {
        Err(self.below(Mistake::custom("nothing is said of this: leave the value out")))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Mistake> {
        seed.deserialize(Reader(&self.0.1)).map_err(|mistake| self.below(mistake))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Mistake> {
        Reader(&self.0.1).deserialize_any(visitor).map_err(|mistake| self.below(mistake))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        Reader(&self.0.1).deserialize_any(visitor).map_err(|mistake| self.below(mistake))
    }
}
