//! Moments of a migration.

use handover_engine::ports::hooks::Occasion;
use handover_engine::time::Timestamp;
use handover_proto::v1;

use super::{BadField, FromWire, IntoWire, name};

impl IntoWire<v1::HooksRequest> for &Occasion {
    fn into_wire(self) -> v1::HooksRequest {
        v1::HooksRequest {
            migration: self.migration.to_string(),
            moment: self.moment.to_string(),
            at_ms: self.at.map(|at| at.millis()),
        }
    }
}

impl FromWire<v1::HooksRequest> for Occasion {
    fn from_wire(message: v1::HooksRequest) -> Result<Self, BadField> {
        Ok(Occasion {
            migration: name("migration", &message.migration)?,
            moment: message.moment.parse().map_err(|bad| BadField::bad("moment", bad))?,
            at: message.at_ms.map(Timestamp::from_millis),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_engine::ports::hooks::Moment;

    #[test]
    fn occasions_arrive_as_they_were_sent() {
        let migration = "m-1".parse().unwrap();
        for (moment, at) in
            [(Moment::BeforeFence, None), (Moment::Notice, Some(Timestamp::from_millis(7_001)))]
        {
            let sent = Occasion { migration: Clone::clone(&migration), moment, at };
            assert_eq!(Occasion::from_wire((&sent).into_wire()), Ok(sent));
        }
        let message = |migration: &str, moment: &str| v1::HooksRequest {
            migration: migration.to_owned(),
            moment: moment.to_owned(),
            at_ms: None,
        };
        for (message, field) in
            [(message("../x", "notice"), "migration"), (message("m", "/bin/sh"), "moment")]
        {
            assert_eq!(Occasion::from_wire(message).unwrap_err().field, field);
        }
    }
}
