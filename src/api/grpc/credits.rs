//! The message that adds credits, to the action's type, by a pure function. Called by the service alone. Each field that
//! breaks a rule is reported by its own name.

use super::fields::{optional, owner_kind, request_id, token_id};
use super::plans::amount;
use crate::api::proto;
use crate::domain::{FieldError, OrganizationId, PlanName, UserId, Violations};
use crate::tokens::credits::{AddCredits, CreditSubject};

pub(super) fn request(message: &proto::AddCreditsRequest) -> Result<AddCredits, Violations> {
    let mut violations = Violations::default();
    let organization_id =
        violations.take("organization_id", optional(&message.organization_id, OrganizationId::parse));
    let plan = violations.take("plan", PlanName::parse(&message.plan));
    let limit = violations.take("limit", PlanName::parse(&message.limit));
    let token_id = violations.take("token_id", optional(&message.token_id, token_id));
    let user_id = violations.take("user_id", optional(&message.user_id, UserId::parse));
    let kind = violations.take("owner_kind", owner_kind(message.owner_kind));
    let amount = violations.take("amount", amount(message.amount, 1));
    let given = request_id(&message.request_id).and_then(|given| given.ok_or(FieldError::Required));
    let request_id = violations.take("request_id", given);
    if message.user_id.is_empty() && message.owner_kind != 0 {
        violations.add("owner_kind", &FieldError::Rule("is for a user_id"));
    }
    if !message.user_id.is_empty() && !message.token_id.is_empty() {
        violations.add("user_id", &FieldError::Rule("cannot be combined with token_id"));
    }
    let request = (|| {
        let subject = match (token_id?, user_id?) {
            (Some(id), _) => CreditSubject::Token(id),
            (None, Some(user_id)) => CreditSubject::User(kind?.unwrap_or_default(), user_id),
            (None, None) => CreditSubject::Organization,
        };
        Some(AddCredits {
            organization_id: organization_id?,
            plan: plan?,
            limit: limit?,
            subject,
            amount: amount?,
            request_id: request_id?,
        })
    })();
    violations.finish(request)
}
