"""The wire types of the admin API, defined once: the server validates and renders with them, the
client parses.

Times are ISO 8601 in UTC. Fields that a newer server adds are ignored by an older client.
"""

from ttrl_client.types._base import ErrorBody, ErrorDetail, Page, Wire, WireInput
from ttrl_client.types._cycles import (
    ACTIVE,
    Cycle,
    CycleCreate,
    CyclePhase,
    CycleStatus,
    EvaluationReport,
    Step,
)
from ttrl_client.types._feedback import (
    COMPLETION_ID,
    MAX_FEEDBACK_ITEMS,
    Feedback,
    FeedbackBatch,
    FeedbackBatchCreate,
    FeedbackCreate,
)
from ttrl_client.types._limits import Limits
from ttrl_client.types._queries import Answer, Query
from ttrl_client.types._settings import (
    MAX_INTERVAL_S,
    AnswerKind,
    AnswerOptions,
    Estimator,
    Gate,
    Learning,
    Schedule,
    StopRules,
    TenantSettings,
    Voting,
)
from ttrl_client.types._status import EngineStatus, Status
from ttrl_client.types._tenants import (
    TENANT_NAME,
    Key,
    KeyCreate,
    NewKey,
    NewTenant,
    Tenant,
    TenantCreate,
    TenantUpdate,
    check_tenant_name,
)
from ttrl_client.types._versions import MAX_VERSION, Promotion, Rollback, Swap, Version
from ttrl_client.types._views import View

__all__ = [
    "AnswerKind",
    "AnswerOptions",
    "Estimator",
    "StopRules",
    "ACTIVE",
    "Answer",
    "COMPLETION_ID",
    "Cycle",
    "CycleCreate",
    "CyclePhase",
    "CycleStatus",
    "EngineStatus",
    "ErrorBody",
    "ErrorDetail",
    "EvaluationReport",
    "Feedback",
    "FeedbackBatch",
    "FeedbackBatchCreate",
    "FeedbackCreate",
    "Gate",
    "Key",
    "KeyCreate",
    "Learning",
    "Limits",
    "MAX_FEEDBACK_ITEMS",
    "MAX_INTERVAL_S",
    "MAX_VERSION",
    "NewKey",
    "NewTenant",
    "Page",
    "Promotion",
    "Query",
    "Rollback",
    "Schedule",
    "Status",
    "Step",
    "Swap",
    "TENANT_NAME",
    "Tenant",
    "TenantCreate",
    "TenantSettings",
    "TenantUpdate",
    "Version",
    "View",
    "Voting",
    "Wire",
    "WireInput",
    "check_tenant_name",
]
