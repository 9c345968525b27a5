//! Places in trees on the wire.

use handover_engine::tree::{Changed, Cursor, Spots};
use handover_proto::v1;

use super::{BadField, FromWire, IntoWire, path};

impl IntoWire<Vec<v1::Spot>> for Spots {
    fn into_wire(self) -> Vec<v1::Spot> {
        let spot = |(path, deep): (&handover_engine::tree::RelPath, bool)| v1::Spot {
            path: Vec::from(path.clone()).into(),
            deep,
        };
        self.iter().map(spot).collect()
    }
}

impl FromWire<Vec<v1::Spot>> for Spots {
    fn from_wire(message: Vec<v1::Spot>) -> Result<Self, BadField> {
        let mut spots = Spots::default();
        for v1::Spot { path: bytes, deep } in message {
            spots.add(path("spots.path", bytes)?, deep);
            if spots.are_too_many() {
                return Err(BadField::bad("spots", "are more than are told one by one"));
            }
        }
        Ok(spots)
    }
}

impl IntoWire<v1::ChangedReply> for Changed {
    fn into_wire(self) -> v1::ChangedReply {
        let Changed { cursor, spots, untold } = self;
        let anywhere = spots.is_none();
        let spots = spots.map(IntoWire::into_wire).unwrap_or_default();
        v1::ChangedReply { cursor: cursor.0, anywhere, spots, untold }
    }
}

impl FromWire<v1::ChangedReply> for Changed {
    fn from_wire(message: v1::ChangedReply) -> Result<Self, BadField> {
        let v1::ChangedReply { cursor, anywhere, spots, untold } = message;
        let spots = if anywhere { None } else { Some(Spots::from_wire(spots)?) };
        Ok(Self { cursor: Cursor(cursor), spots, untold })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_engine::tree::{MOST_SPOTS, RelPath};

    #[test]
    fn what_has_changed_arrives_as_it_was() {
        let mut spots = Spots::default();
        spots.add(RelPath::new("a/b").unwrap(), false);
        spots.add(RelPath::root(), false);
        spots.add(RelPath::new(&b"c\xff"[..]).unwrap(), true);
        for spots in [Some(spots), Some(Spots::default()), None] {
            let changed = Changed { cursor: Cursor("x/1".to_owned()), spots, untold: "why".to_owned() };
            assert_eq!(Changed::from_wire(changed.clone().into_wire()), Ok(changed));
        }
    }

    #[test]
    fn bad_places_are_refused() {
        let spot = |path: &str| v1::Spot { path: path.to_owned().into_bytes().into(), deep: false };
        for bad in ["../a", "/a", "a//b", "a/."] {
            assert_eq!(Spots::from_wire(vec![spot(bad)]).unwrap_err().field, "spots.path", "{bad}");
        }
        let many = (0..=MOST_SPOTS).map(|n| spot(&format!("f{n}"))).collect();
        assert_eq!(Spots::from_wire(many).unwrap_err().field, "spots");
    }
}
