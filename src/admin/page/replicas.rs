//! The section of the replicas: who polls each backend, and what this replica does.

use jiff::Timestamp;
use maud::{Markup, html};

use super::{
    show::{badge, none, time, words},
    table::{Cell, Row, Table},
};
use crate::cluster::{
    ReplicaStatus,
    status::{NatsStatus, RoleName, SeatStatus},
};

const REPLICAS: [&str; 8] =
    ["Backend", "Role", "Since", "Owner", "Epoch", "Sessions", "Requests per second", "NATS"];

/// The whole section.
pub(super) fn section(status: &ReplicaStatus, now: Timestamp) -> Markup {
    let ReplicaStatus { cluster, member, replicas, replicas_known, .. } = status;
    let is_too_many = *replicas_known > usize::try_from(*replicas).unwrap_or(usize::MAX);
    html! {
        section aria-labelledby="replicas-title" {
            h2 id="replicas-title" { "Replicas" }
            p { "This is " strong { (words(member)) } " of the cluster " (words(cluster)) ", which has at most " (replicas) " replicas." }
            @if is_too_many {
                p { (badge("bad", "too many replicas")) " At least " (replicas_known) " run: together they may exceed " code { "requests_per_second" } "." }
            }
            (table(status, now).html("The owner of each backend, and what this replica does", &REPLICAS))
        }
    }
}

/// One row for each backend.
pub(super) fn table(status: &ReplicaStatus, now: Timestamp) -> Table {
    let rows = status.backends.iter().map(|seat| row(status, seat, now)).collect();
    Table::new("replicas", rows, REPLICAS.len(), "No backend is configured.")
}

fn row(status: &ReplicaStatus, seat: &SeatStatus, now: Timestamp) -> Row {
    let SeatStatus { backend, role, since, owner, sessions, requests_per_second, why, .. } = seat;
    let class = match role {
        RoleName::Starting => "idle",
        RoleName::Owner | RoleName::Follower => "good",
        RoleName::Isolated => "bad",
    };
    let is_this = owner.as_ref().is_some_and(|owner| owner.incarnation == status.incarnation);
    let news = format!("This replica is {role} of backend {backend}");
    let share = if *role == RoleName::Owner { requests_per_second.owner } else { requests_per_second.own };
    let cells: [Cell; 8] = [
        ("Backend", words(backend)),
        ("Role", html! { (badge(class, role.as_str())) @if let Some(why) = why { " " (words(why)) } }),
        ("Since", time(*since, now)),
        (
            "Owner",
            html! {
                @match owner {
                    Some(owner) => { (words(&owner.member)) @if is_this { " " span class="dim" { "this replica" } } }
                    None => (none())
                }
            },
        ),
        ("Epoch", html! { @match owner { Some(owner) => (owner.epoch), None => (none()) } }),
        ("Sessions", html! { (sessions) }),
        (
            "Requests per second",
            html! { (share) " " span class="dim" { "alone " (requests_per_second.own) ", as owner " (requests_per_second.owner) } },
        ),
        (
            "NATS",
            html! {
                @match &status.nats {
                    NatsStatus::Connected { server } => (words(server)),
                    NatsStatus::Disconnected { why, .. } => { (badge("bad", "not connected")) " " (words(why)) }
                }
            },
        ),
    ];
    Row::new(&["replica", backend], "", Some(&news), &cells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::{isolated, replica_status};

    fn text(status: &ReplicaStatus) -> String {
        section(status, "2026-11-26T03:00:10Z".parse().unwrap()).into_string()
    }

    #[test]
    fn section_shows_owner_epoch_sessions_and_shares() {
        let text = text(&replica_status());
        for part in [
            "<strong><bdi>gateway-0</bdi></strong> of the cluster <bdi>prod</bdi>, which has at most 3 replicas",
            "<span class=\"badge good\">owner</span>",
            "<bdi>gateway-0</bdi> <span class=\"dim\">this replica</span>",
            "data-label=\"Epoch\">7<",
            "data-label=\"Sessions\">2<",
            ">18 <span class=\"dim\">alone 1, as owner 18</span>",
            "<bdi>nats-1</bdi>",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn more_replicas_than_there_may_be_are_marked() {
        let mut status = replica_status();
        assert!(!text(&status).contains("too many replicas"));
        status.replicas_known = 4;
        let text = text(&status);
        assert!(
            text.contains("<span class=\"badge bad\">too many replicas</span> At least 4 run:"),
            "{text}"
        );
    }

    #[test]
    fn isolated_replica_is_marked_with_the_reason() {
        let mut status = isolated(replica_status());
        status.member = "<b>".to_owned();
        status.backends[0].why = Some("the owner polls another vendor".to_owned());
        let text = text(&status);
        for part in [
            "<span class=\"badge bad\">isolated</span> <bdi>the owner polls another vendor</bdi>",
            "<span class=\"badge bad\">not connected</span> <bdi>connection refused</bdi>",
            ">1 <span class=\"dim\">alone 1, as owner 18</span>",
            "&lt;b&gt;",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("this replica</span>"));
    }
}
