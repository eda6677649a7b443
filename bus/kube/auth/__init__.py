"""Who asks, and whether they may: users, role-based access control, impersonation, reviews.

users.py          a user, and what one request wants to do
rules.py          one rule: what it allows, what it covers (pure)
rbac.py           roles and bindings as an index, and the answers from it
policy.py         the roles and bindings that every cluster has from its first start
escalation.py     nobody grants what they don't have
impersonation.py  acting as somebody else
requests.py       what a request wants to do
reviews.py        kinds that are asked and never stored: may I, who am I
jws.py            signed claims as text (ES256), and the key set by which others check them
account_tokens.py tokens of service accounts: made for a TokenRequest, read at every door
doors.py          who knocks: bearer tokens, TokenReview
"""
