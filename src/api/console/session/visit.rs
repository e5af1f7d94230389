//! A visit to the console: a request with its session and its caller, judged anew for each. Called by every page.

use std::sync::{Mutex, PoisonError};

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use time::OffsetDateTime;

use super::gate::{self, SignInReason};
use super::is_of_portal;
use crate::admission::fair_limiter::Permit;
use crate::api::console::failure::{self, Failure};
use crate::api::console::form::Fields;
use crate::api::console::interface::{Console, PageRequest, html};
use crate::api::console::pages::{Frame, SignedIn};
use crate::api::http::identity::Identity;
use crate::auth::sessions::{AuthenticatedSession, SessionError};
use crate::domain::session::Session;
use crate::domain::{AccessError, Caller, Permission, ReservedScope};
use crate::metrics::Integration;
use crate::secret::SessionKey;
use crate::verify::{ClientKey, Credential};

/// A request that belongs to a session.
pub(in crate::api::console) struct Visit {
    pub(in crate::api::console) key: SessionKey,
    pub(in crate::api::console) now: OffsetDateTime,
    pub(in crate::api::console) session: Session,
    credential: Credential,
    signed_in: SignedIn,
    _permit: Permit<ClientKey>,
}

impl Visit {
    pub(in crate::api::console) fn caller(&self) -> &Caller {
        self.credential.caller()
    }

    pub(in crate::api::console) fn share(&self) -> ClientKey {
        ClientKey::from(self.caller())
    }

    /// Returns whether an act needs the secret once more: the token can do everything, and its secret was proven
    /// more than 15 minutes ago.
    pub(in crate::api::console) fn needs_proof(&self) -> bool {
        self.caller().require(Permission::Root).is_ok() && !self.session.is_proven(self.now)
    }

    /// Returns whether the session and its token are still good, for an answer that goes on; judged anew.
    pub(in crate::api::console) async fn is_still_valid(&mut self, console: &Console) -> bool {
        matches!(console.sessions.lasts(&self.key).await, Ok(true))
            && console.integrations.context.engine.judge_again(&mut self.credential).await.is_ok()
    }

    /// Returns the part that is the same on all pages.
    pub(in crate::api::console) fn frame(&self) -> Frame {
        let own = self.caller().only_user(Permission::ReadOwn).is_some();
        Frame::new(Some(SignedIn { own, ..self.signed_in.clone() }), self.key.form_token())
    }

    /// Checks that a form was made for this session.
    ///
    /// # Errors
    /// It was made for another one, or by somebody else.
    pub(in crate::api::console) fn check_form(&self, fields: &Fields<'_>) -> Result<(), Failure> {
        if self.key.accepts(fields.get("form_token")) { Ok(()) } else { Err(failure::foreign_form()) }
    }
}

impl Console {
    /// Runs the work of a page as a call: in its span, within its deadline, counted, and logged when refused.
    pub(in crate::api::console) async fn answer(
        &self,
        page_request: &PageRequest,
        work: impl Future<Output = Result<Response, Failure>>,
    ) -> Response {
        let page = Mutex::new(None);
        let work = async {
            work.await.map_err(|failure| {
                *page.lock().unwrap_or_else(PoisonError::into_inner) = failure.page;
                failure.refusal
            })
        };
        let peer = Some(self.throttled(page_request));
        match self.integrations.call(Integration::Console, peer, None, work).await {
            Ok(response) => response,
            Err(refusal) => {
                let page = page.into_inner().unwrap_or_else(PoisonError::into_inner);
                page.map_or_else(|| self.refused(page_request, &refusal), |page| *page)
            }
        }
    }

    /// Recognises the session of a request and authenticates its caller.
    pub(in crate::api::console) async fn visit(&self, page_request: &PageRequest) -> Result<Visit, Failure> {
        let key = self.key(page_request)?;
        let authenticated = self.sessions.authenticate_presented(&key, self.address(page_request)).await;
        self.admit(page_request, key, authenticated).await
    }

    /// Opens a visit for a request that a page makes by itself: it does not count as a use of the session.
    pub(in crate::api::console) async fn visit_unseen(
        &self,
        page_request: &PageRequest,
    ) -> Result<Visit, Failure> {
        let key = self.key(page_request)?;
        let authenticated = self.sessions.authenticate_unused(&key, self.address(page_request)).await;
        self.admit(page_request, key, authenticated).await
    }

    fn key(&self, page_request: &PageRequest) -> Result<SessionKey, Failure> {
        self.site
            .key(&page_request.headers)
            .ok_or_else(|| gate::sign_in_required(self, page_request, SignInReason::NoSession))
    }

    /// Checks that a portal session is used for its own pages alone, and nothing else in a frame.
    fn is_allowed(&self, page_request: &PageRequest, session: &Session) -> Result<(), Failure> {
        if session.portal.is_none() {
            return match self.site.framed_by(&page_request.headers) {
                Some(_) => Err(gate::sign_in_required(self, page_request, SignInReason::NoSession)),
                None => Ok(()),
            };
        }
        if is_of_portal(page_request.uri.path()) {
            return Ok(());
        }
        Err(AccessError::MissingScope(ReservedScope::Read).into())
    }

    async fn admit(
        &self,
        page_request: &PageRequest,
        key: SessionKey,
        authenticated: Result<AuthenticatedSession, SessionError>,
    ) -> Result<Visit, Failure> {
        let AuthenticatedSession { session, credential, now } = match authenticated {
            Ok(authenticated) => authenticated,
            Err(error) => return Err(gate::unrecognised(self, page_request, error).await),
        };
        self.is_allowed(page_request, &session)?;
        page_request.peer.credentials.note();
        let permit = self.integrations.context.call_permits.take(ClientKey::from(credential.caller()))?;
        let signed_in = if let Some(portal) = &session.portal {
            // The token is not the person's.
            SignedIn { portal: true, ..SignedIn::new("", portal.terms.user_id.as_str()) }
        } else {
            let identity = credential.record().and_then(Identity::of);
            identity.map(|Identity(token)| SignedIn::new(&token.name, &token.user_id)).unwrap_or_default()
        };
        Ok(Visit { key, now, session, credential, signed_in, _permit: permit })
    }

    /// Answers a visit with a page.
    pub(in crate::api::console) fn page(
        &self,
        visit: &Visit,
        status: StatusCode,
        page: &impl Template,
    ) -> Result<Response, Failure> {
        let text = page.render().map_err(|_| failure::unrendered())?;
        let room = self.integrations.context.response_memory.reserve(visit.share(), text.len())?;
        Ok(html(status, &text, room))
    }
}
