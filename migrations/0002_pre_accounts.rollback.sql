set local lock_timeout = '5s';
set local statement_timeout = '60s';

drop table account_holds, notification_prefs, user_consents;
drop function user_consents_guard();
drop type hold_effect, consent_type;
