//! What replicas say, as a table.

use jiff::Timestamp;

use crate::{
    cli::{inspect::short, table::table, text::one_line},
    cluster::{
        ReplicaStatus,
        status::{NatsStatus, SeatStatus, ShareStatus},
    },
};

const HEAD: [&str; 9] =
    ["BACKEND", "REPLICA", "ROLE", "SINCE", "OWNER", "EPOCH", "SESSIONS", "RATE OWN/OWNER", "NATS"];

/// A row for each backend and replica, sorted, in so many columns.
pub(super) fn render(replicas: &[&ReplicaStatus], now: Timestamp, room: Option<usize>) -> String {
    let seats = replicas.iter().flat_map(|replica| replica.backends.iter().map(move |seat| (seat, replica)));
    let mut rows: Vec<_> = seats.map(|(seat, replica)| row(seat, replica, now)).collect();
    rows.sort();
    table(&HEAD, &rows, room)
}

fn row(seat: &SeatStatus, replica: &ReplicaStatus, now: Timestamp) -> Vec<String> {
    let SeatStatus { backend, role, since, owner, sessions, requests_per_second, .. } = seat;
    let ShareStatus { own, owner: whole } = requests_per_second;
    let (owner, epoch) = owner
        .as_ref()
        .map_or(("-".to_owned(), "-".to_owned()), |owner| (one_line(&owner.member), owner.epoch.to_string()));
    let nats = match &replica.nats {
        NatsStatus::Connected { server } => one_line(server),
        NatsStatus::Disconnected { why, since } => {
            format!("not connected for {}: {}", short(now.duration_since(*since)), one_line(why))
        }
    };
    vec![
        one_line(backend),
        one_line(&replica.member),
        role.as_str().to_uppercase(),
        short(now.duration_since(*since)),
        owner,
        epoch,
        sessions.to_string(),
        format!("{own}/{whole}"),
        nats,
    ]
}

#[cfg(test)]
mod tests {
    use super::{
        super::agreement::tests::{NOW, follower, isolated, owner},
        *,
    };

    #[test]
    fn replicas_are_rows_of_one_table() {
        let text = render(&[&isolated(2), &follower(1), &owner()], NOW.parse().unwrap(), None);
        assert_eq!(
            text,
            "BACKEND  REPLICA    ROLE      SINCE  OWNER      EPOCH  SESSIONS  RATE OWN/OWNER  NATS\n\
             db       gateway-0  OWNER     10 s   gateway-0  7      1         1/18            nats-0\n\
             db       gateway-1  FOLLOWER  10 s   gateway-0  7      0         1/18            nats-1\n\
             db       gateway-2  ISOLATED  10 s   -          -      0         1/18            not connected for 13 s: connection refused\n"
        );
    }
}
