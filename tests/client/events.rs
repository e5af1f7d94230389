//! The typed audit log: who did what for whom, page by page, for callers that may read it.

use tokend_client::{
    Attribution, ErrorKind, ErrorReason, EventListing, Expiration, FieldChange, NewToken, Principal,
    RevocationTarget, TokenEventKind, TokenUpdate,
};

use super::asking::{holder, root, with};
use crate::support::replica::Replica;

#[tokio::test]
async fn events_name_actor_acting_user_and_changes() {
    let replica = Replica::start().await;
    let client = root(&replica);
    let frontend = client.acting_for("grace").unwrap();
    let made = frontend.create_token(NewToken::new("ada", "laptop", Expiration::Never)).await.unwrap();
    let id = made.token.id;
    let renamed = with(TokenUpdate::default(), |it| it.name = Some("desk".to_owned()));
    client.update_token(id, renamed).await.unwrap();
    client.revoke_token(RevocationTarget::Id(id), "lost").await.unwrap();

    let listing = with(EventListing::default(), |it| it.token_id = Some(id));
    let page = client.list_token_events(&listing, None).await.unwrap();

    assert_eq!(page.next, None);
    let [revocation, update, creation] = &page.items[..] else { panic!("{page:?}") };
    let kinds = page.items.iter().map(|event| event.kind).collect::<Vec<_>>();
    assert_eq!(kinds, [TokenEventKind::Revoked, TokenEventKind::Updated, TokenEventKind::Created].map(Some));
    let caller = Principal::parse(&replica.installation.root_secret[5..27]);
    for event in &page.items {
        assert_eq!(
            (event.token_id, event.organization_id.as_str(), event.user_id.as_str()),
            (Some(id), "default", "ada")
        );
        assert_eq!((&event.actor, event.trace_id.as_ref().map(String::len)), (&caller, Some(32)));
    }
    assert_eq!(
        (creation.acting_user.as_deref(), update.acting_user.as_deref()),
        (Some("grace"), Some("root"))
    );
    let known = (creation.attribution, update.attribution);
    assert_eq!(known, (Some(Attribution::Claimed), Some(Attribution::Proven)));
    assert_eq!(creation.event_time, made.token.create_time);
    let reported = |change: &FieldChange| (change.field.clone(), change.old.clone(), change.new.clone());
    let change = |field: &str, old: Option<&str>, new: &str| {
        (field.to_owned(), old.map(str::to_owned), Some(new.to_owned()))
    };
    assert_eq!(
        update.changes.iter().map(reported).collect::<Vec<_>>(),
        [change("name", Some("laptop"), "desk")]
    );
    assert!(
        revocation
            .changes
            .iter()
            .map(reported)
            .any(|reported| reported == change("revoke_reason", None, "lost"))
    );
}

#[tokio::test]
async fn the_log_is_read_in_pages_and_a_page_token_belongs_to_its_filters() {
    let replica = Replica::start().await;
    let client = root(&replica);
    for number in 0..7 {
        client.create_token(NewToken::new("ada", format!("{number}"), Expiration::Never)).await.unwrap();
    }
    let listing = with(EventListing::default(), |it| {
        it.user_id = Some("ada".to_owned());
        it.page_size = 3;
    });

    let all = client.token_event_pages(&listing).collect().await.unwrap();

    assert_eq!(all.len(), 7);
    assert!(all.is_sorted_by(|newer, older| newer.id > older.id), "newest first, and each once");
    let first = client.list_token_events(&listing, None).await.unwrap();
    assert_eq!(first.items, all[..3]);
    let second = client.list_token_events(&listing, first.next.as_deref()).await.unwrap();
    assert_eq!(second.items, all[3..6]);
    let everybody = with(listing, |it| it.user_id = None);
    let foreign = client.list_token_events(&everybody, first.next.as_deref()).await.unwrap_err();
    assert_eq!((foreign.kind(), foreign.reason()), (ErrorKind::Invalid, Some(ErrorReason::InvalidPageToken)));
}

#[tokio::test]
async fn the_log_is_filtered_by_time_and_actor() {
    let replica = Replica::start().await;
    let client = root(&replica);
    client.create_token(NewToken::new("ada", "laptop", Expiration::Never)).await.unwrap();
    let all = client.token_event_pages(&EventListing::default()).collect().await.unwrap();
    let [creation, bootstrap] = &all[..] else { panic!("{all:?}") };
    let found = async |change: fn(&mut EventListing, time::OffsetDateTime)| {
        let listing = with(EventListing::default(), |it| change(it, creation.event_time));
        client.token_event_pages(&listing).collect().await.unwrap()
    };

    assert_eq!(found(|it, at| it.occurred_after = Some(at)).await, all[..1]);
    assert_eq!(found(|it, at| it.occurred_before = Some(at)).await, all[1..]);
    assert_eq!(found(|it, _| it.actor = Some("bootstrap".to_owned())).await, std::slice::from_ref(bootstrap));
    assert_eq!(found(|it, _| it.actor = Some("tokend".to_owned())).await, []);
}

#[tokio::test]
async fn the_log_needs_the_read_scope_and_shows_the_own_organization() {
    let replica = Replica::start().await;
    let client = root(&replica);
    let new = NewToken::new("ada", "laptop", Expiration::Never);
    let foreign = client.create_token(new).await.unwrap().token.id;
    let verifier = holder(&replica, "acme", &["tokend:verify"]).await;
    let reader = holder(&replica, "acme", &["tokend:read"]).await;

    let refused = verifier.token_event_pages(&EventListing::default()).next().await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.reason()),
        (ErrorKind::PermissionDenied, Some(ErrorReason::ScopeMissing))
    );
    let own = reader.token_event_pages(&EventListing::default()).collect().await.unwrap();
    assert!(!own.is_empty() && own.iter().all(|event| event.organization_id.as_str() == "acme"));
    let listing = with(EventListing::default(), |it| it.token_id = Some(foreign));
    assert_eq!(reader.list_token_events(&listing, None).await.unwrap().items, []);
}

#[tokio::test]
async fn the_acting_user_has_a_limited_length() {
    let replica = Replica::start().await;
    let client = root(&replica);

    for bad in ["", &"x".repeat(201), "two\nlines"] {
        assert!(client.acting_for(bad).is_err(), "{bad:?}");
    }
    for good in [&*"x".repeat(200), "gr\u{e5}ce", "50%", "a b"] {
        assert!(client.acting_for(good).unwrap().get_policy(None).await.is_ok());
    }
}
