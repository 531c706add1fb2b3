-- name: get_prefs
-- What the user wants to be told, and how.
select p.email_trade_fills, p.email_deposits, p.email_withdrawals, p.email_security_alerts, p.push_enabled,
       p.sms_enabled, p.updated_at
from notification_prefs p
where p.user_id = :user_id;

-- name: save_prefs
-- The whole row.
update notification_prefs
set email_trade_fills = :prefs.email_trade_fills, email_deposits = :prefs.email_deposits,
    email_withdrawals = :prefs.email_withdrawals, email_security_alerts = :prefs.email_security_alerts,
    push_enabled = :prefs.push_enabled, sms_enabled = :prefs.sms_enabled, updated_at = :at
where user_id = :user_id;
