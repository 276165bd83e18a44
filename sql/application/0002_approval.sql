-- Approvals: a row for each request, which its workflow updates.

create table app.approval (
    tenant_id    uuid        not null,
    approval_id  text        not null check (approval_id <> ''),
    workflow_id  text        not null,
    subject      text        not null,
    requested_by text        not null,
    state        text        not null check (state in ('pending', 'approved', 'rejected', 'cancelled', 'expired', 'failed')),
    level        integer     not null check (level >= 1),
    approver     text        not null,
    delegate     text        check (delegate <> ''),
    deadline     timestamptz,
    reminders    integer     not null,
    decided_by   text        check (decided_by <> ''),
    decided_at   timestamptz,
    comment      text        check (comment <> ''),
    revision     integer     not null,
    requested_at timestamptz not null default now(),
    changed_at   timestamptz not null default now(),
    primary key (tenant_id, approval_id),
    check ((state = 'pending') = (decided_at is null))
);
create index approval_desk on app.approval (tenant_id, approver, deadline) where state = 'pending';
create index approval_delegated on app.approval (tenant_id, delegate, deadline) where state = 'pending' and delegate is not null;
select app.isolate('app.approval');

comment on table app.approval is 'Requests for approval, one row each, as their workflows wrote them last. While the state is pending, it waits for the approver, or the delegate.';
comment on column app.approval.level is 'The approver in the chain that it waits for; the first is level 1.';
comment on column app.approval.revision is 'Steps so far: a late repetition of an earlier step changes nothing.';
