/* Numbers of the agent protocol. Made by python -m hyperstack.guest.header: don't edit. */
#ifndef HYPER_MESSAGES_H
#define HYPER_MESSAGES_H
#define HYPER_VERSION 3u
#define HYPER_HEADER 16u
#define HYPER_MAX_MESSAGE 4194304u
#define HYPER_MAX_DATA 131072u
#define HYPER_MAX_DEPTH 4u
#define HYPER_PORT 1024u
#define HYPER_PREFIX 30u
#define HYPER_WINDOW 262144u
#define HYPER_GUEST_ADDRESS "169.254.77.2"
#define HYPER_HOST_ADDRESS "169.254.77.1"
#define HYPER_READY "hyper-agent: ready"
enum hyper_frame {
    FRAME_HELLO = 1,
    FRAME_REQUEST = 2,
    FRAME_REPLY = 3,
    FRAME_EVENT = 4,
    FRAME_DATA = 5,
    FRAME_CREDIT = 6,
    FRAME_EOF = 7,
    FRAME_RESET = 8,
};
enum hyper_op {
    OP_SETUP = 1,
    OP_ROOT_MOUNT = 2,
    OP_CONTAINER_START = 3,
    OP_EXEC = 4,
    OP_SIGNAL = 5,
    OP_RESIZE = 6,
    OP_FREEZE = 7,
    OP_UPDATE = 8,
    OP_STATS = 9,
    OP_TOP = 10,
    OP_LIST = 11,
    OP_RELEASE = 12,
    OP_CONTAINER_REMOVE = 13,
    OP_NIC_ADD = 14,
    OP_NIC_REMOVE = 15,
    OP_ARCHIVE_STAT = 16,
    OP_ARCHIVE_GET = 17,
    OP_ARCHIVE_PUT = 18,
    OP_CHANGES = 19,
    OP_EXPORT = 20,
    OP_POWEROFF = 21,
    OP_PING = 22,
    OP_TRIM = 23,
    OP_DNS_ANSWER = 24,
    OP_FILE_WRITE = 25,
    OP_SOCKET_ANSWER = 26,
    OP_OWNER = 27,
};
enum hyper_event_kind {
    EVENT_KIND_EXIT = 1,
    EVENT_KIND_OOM = 2,
    EVENT_KIND_DNS_QUERY = 3,
    EVENT_KIND_SOCKET_OPEN = 4,
};
enum hyper_stage {
    STAGE_OTHER = 0,
    STAGE_ROOT = 1,
    STAGE_MOUNT = 2,
    STAGE_NETWORK = 3,
    STAGE_CGROUP = 4,
    STAGE_NAMESPACE = 5,
    STAGE_USER = 6,
    STAGE_CWD = 7,
    STAGE_EXEC_LOOKUP = 8,
    STAGE_EXEC = 9,
    STAGE_SECCOMP = 10,
    STAGE_DEVICE = 11,
    STAGE_SYSCTL = 12,
    STAGE_RLIMIT = 13,
    STAGE_TTY = 14,
};
enum hyper_source_kind {
    SOURCE_KIND_FILE = 1,
    SOURCE_KIND_BLOCK = 2,
    SOURCE_KIND_SERIAL = 3,
};
enum hyper_mount_kind {
    MOUNT_KIND_SHARE = 1,
    MOUNT_KIND_TMPFS = 2,
    MOUNT_KIND_FILE = 3,
    MOUNT_KIND_SOCKET = 4,
};
enum hyper_field_container {
    F_CONTAINER_ID = 1,
    F_CONTAINER_ROOT = 2,
    F_CONTAINER_MOUNTS = 3,
    F_CONTAINER_HOSTNAME = 4,
    F_CONTAINER_DOMAINNAME = 5,
    F_CONTAINER_NAMESPACES = 6,
    F_CONTAINER_JOINS = 7,
    F_CONTAINER_LIMITS = 8,
    F_CONTAINER_SYSCTLS = 9,
    F_CONTAINER_DEVICES = 10,
    F_CONTAINER_MASKED_PATHS = 11,
    F_CONTAINER_READONLY_PATHS = 12,
    F_CONTAINER_NICS = 13,
    F_CONTAINER_PROCESS = 14,
    F_CONTAINER_INIT = 15,
    F_CONTAINER_PRIVILEGED = 16,
    F_CONTAINER_SHM_SIZE = 17,
    F_CONTAINER_DNS = 18,
};
enum hyper_field_device {
    F_DEVICE_PATH = 1,
    F_DEVICE_TYPE = 2,
    F_DEVICE_MAJOR = 3,
    F_DEVICE_MINOR = 4,
    F_DEVICE_MODE = 5,
    F_DEVICE_UID = 6,
    F_DEVICE_GID = 7,
};
enum hyper_field_exec {
    F_EXEC_CONTAINER = 1,
    F_EXEC_PROCESS = 2,
    F_EXEC_PRIVILEGED = 3,
};
enum hyper_field_join {
    F_JOIN_NAMESPACE = 1,
    F_JOIN_CONTAINER = 2,
};
enum hyper_field_limits {
    F_LIMITS_MEMORY_MAX = 1,
    F_LIMITS_MEMORY_LOW = 2,
    F_LIMITS_SWAP_MAX = 3,
    F_LIMITS_PIDS_MAX = 4,
    F_LIMITS_CPU_WEIGHT = 5,
    F_LIMITS_CPU_QUOTA_US = 6,
    F_LIMITS_CPU_PERIOD_US = 7,
    F_LIMITS_OOM_GROUP = 8,
    F_LIMITS_CPU_BY_HOST = 9,
};
enum hyper_field_mount {
    F_MOUNT_KIND = 1,
    F_MOUNT_TARGET = 2,
    F_MOUNT_SOURCE = 3,
    F_MOUNT_FLAGS = 4,
    F_MOUNT_DATA = 5,
    F_MOUNT_CONTENT = 6,
    F_MOUNT_MODE = 7,
    F_MOUNT_COPY_UP = 8,
    F_MOUNT_UID = 9,
    F_MOUNT_GID = 10,
};
enum hyper_field_nic {
    F_NIC_MAC = 1,
    F_NIC_NAME = 2,
    F_NIC_MTU = 3,
    F_NIC_ADDRESSES = 4,
    F_NIC_GATEWAY4 = 5,
    F_NIC_GATEWAY6 = 6,
    F_NIC_ROUTES = 7,
};
enum hyper_field_process {
    F_PROCESS_HANDLE = 1,
    F_PROCESS_ARGV = 2,
    F_PROCESS_ENV = 3,
    F_PROCESS_CWD = 4,
    F_PROCESS_USER = 5,
    F_PROCESS_GROUPS = 6,
    F_PROCESS_TTY = 7,
    F_PROCESS_ROWS = 8,
    F_PROCESS_COLUMNS = 9,
    F_PROCESS_STDIN = 10,
    F_PROCESS_STDOUT = 11,
    F_PROCESS_STDERR = 12,
    F_PROCESS_CAP_BOUNDING = 13,
    F_PROCESS_CAP_EFFECTIVE = 14,
    F_PROCESS_CAP_PERMITTED = 15,
    F_PROCESS_CAP_INHERITABLE = 16,
    F_PROCESS_CAP_AMBIENT = 17,
    F_PROCESS_NO_NEW_PRIVS = 18,
    F_PROCESS_SECCOMP = 19,
    F_PROCESS_RLIMITS = 20,
    F_PROCESS_UMASK = 21,
    F_PROCESS_OOM_SCORE_ADJ = 22,
};
enum hyper_field_rlimit {
    F_RLIMIT_RESOURCE = 1,
    F_RLIMIT_SOFT = 2,
    F_RLIMIT_HARD = 3,
};
enum hyper_field_root {
    F_ROOT_LAYERS = 1,
    F_ROOT_DISK = 2,
    F_ROOT_READ_ONLY = 3,
};
enum hyper_field_root_mount {
    F_ROOT_MOUNT_ID = 1,
    F_ROOT_MOUNT_ROOT = 2,
    F_ROOT_MOUNT_MOUNTS = 3,
};
enum hyper_field_route {
    F_ROUTE_DESTINATION = 1,
    F_ROUTE_GATEWAY = 2,
};
enum hyper_field_source {
    F_SOURCE_KIND = 1,
    F_SOURCE_PATH = 2,
};
enum hyper_field_sysctl {
    F_SYSCTL_NAME = 1,
    F_SYSCTL_VALUE = 2,
};
enum hyper_field_failure {
    F_FAILURE_STAGE = 1,
    F_FAILURE_DETAIL = 2,
};
enum hyper_field_setup {
    F_SETUP_CLOCK_NS = 1,
    F_SETUP_ENTROPY = 2,
    F_SETUP_HOSTNAME = 3,
    F_SETUP_SHARE_TAG = 4,
};
enum hyper_field_info {
    F_INFO_AGENT_VERSION = 1,
    F_INFO_KERNEL_RELEASE = 2,
    F_INFO_KERNEL_VERSION = 3,
    F_INFO_MEMORY_TOTAL = 4,
    F_INFO_SECCOMP_ACTIONS = 5,
};
enum hyper_field_started {
    F_STARTED_PID = 1,
    F_STARTED_STARTED_NS = 2,
};
enum hyper_field_container_ref {
    F_CONTAINER_REF_ID = 1,
};
enum hyper_field_process_ref {
    F_PROCESS_REF_HANDLE = 1,
};
enum hyper_field_signal {
    F_SIGNAL_HANDLE = 1,
    F_SIGNAL_SIGNAL = 2,
    F_SIGNAL_ALL = 3,
};
enum hyper_field_resize {
    F_RESIZE_HANDLE = 1,
    F_RESIZE_ROWS = 2,
    F_RESIZE_COLUMNS = 3,
};
enum hyper_field_freeze {
    F_FREEZE_ID = 1,
    F_FREEZE_FROZEN = 2,
};
enum hyper_field_update {
    F_UPDATE_ID = 1,
    F_UPDATE_LIMITS = 2,
};
enum hyper_field_nic_stats {
    F_NIC_STATS_NAME = 1,
    F_NIC_STATS_RX_BYTES = 2,
    F_NIC_STATS_RX_PACKETS = 3,
    F_NIC_STATS_RX_ERRORS = 4,
    F_NIC_STATS_RX_DROPPED = 5,
    F_NIC_STATS_TX_BYTES = 6,
    F_NIC_STATS_TX_PACKETS = 7,
    F_NIC_STATS_TX_ERRORS = 8,
    F_NIC_STATS_TX_DROPPED = 9,
};
enum hyper_field_stats {
    F_STATS_MEMORY_CURRENT = 1,
    F_STATS_MEMORY_MAX = 2,
    F_STATS_MEMORY_STAT = 3,
    F_STATS_PIDS_CURRENT = 4,
    F_STATS_PIDS_MAX = 5,
    F_STATS_CPU_USAGE_US = 6,
    F_STATS_CPU_USER_US = 7,
    F_STATS_CPU_SYSTEM_US = 8,
    F_STATS_CPU_PERIODS = 9,
    F_STATS_CPU_THROTTLED_PERIODS = 10,
    F_STATS_CPU_THROTTLED_US = 11,
    F_STATS_READ_BYTES = 12,
    F_STATS_WRITE_BYTES = 13,
    F_STATS_READ_OPS = 14,
    F_STATS_WRITE_OPS = 15,
    F_STATS_NICS = 16,
    F_STATS_OOM_KILLS = 17,
};
enum hyper_field_task {
    F_TASK_PID = 1,
    F_TASK_PPID = 2,
    F_TASK_UID = 3,
    F_TASK_GID = 4,
    F_TASK_USER = 5,
    F_TASK_COMM = 6,
    F_TASK_CMDLINE = 7,
    F_TASK_STATE = 8,
    F_TASK_TTY = 9,
    F_TASK_START_NS = 10,
    F_TASK_UTIME = 11,
    F_TASK_STIME = 12,
    F_TASK_VSZ = 13,
    F_TASK_RSS = 14,
    F_TASK_NICE = 15,
    F_TASK_PRIORITY = 16,
    F_TASK_THREADS = 17,
    F_TASK_PGID = 18,
    F_TASK_SID = 19,
};
enum hyper_field_top {
    F_TOP_TASKS = 1,
};
enum hyper_field_process_state {
    F_PROCESS_STATE_HANDLE = 1,
    F_PROCESS_STATE_CONTAINER = 2,
    F_PROCESS_STATE_PID = 3,
    F_PROCESS_STATE_RUNNING = 4,
    F_PROCESS_STATE_CODE = 5,
    F_PROCESS_STATE_SIGNAL = 6,
    F_PROCESS_STATE_OOM = 7,
    F_PROCESS_STATE_STARTED_NS = 8,
    F_PROCESS_STATE_FINISHED_NS = 9,
    F_PROCESS_STATE_STDIN = 10,
    F_PROCESS_STATE_STDOUT = 11,
    F_PROCESS_STATE_STDERR = 12,
    F_PROCESS_STATE_STDIN_TAKEN = 13,
    F_PROCESS_STATE_INIT = 14,
};
enum hyper_field_state {
    F_STATE_PROCESSES = 1,
    F_STATE_CONTAINERS = 2,
};
enum hyper_field_nic_change {
    F_NIC_CHANGE_CONTAINER = 1,
    F_NIC_CHANGE_NIC = 2,
};
enum hyper_field_archive_request {
    F_ARCHIVE_REQUEST_CONTAINER = 1,
    F_ARCHIVE_REQUEST_PATH = 2,
    F_ARCHIVE_REQUEST_STREAM = 3,
    F_ARCHIVE_REQUEST_NO_OVERWRITE_DIR_NON_DIR = 4,
    F_ARCHIVE_REQUEST_COPY_IDS = 5,
};
enum hyper_field_path_stat {
    F_PATH_STAT_NAME = 1,
    F_PATH_STAT_SIZE = 2,
    F_PATH_STAT_MODE = 3,
    F_PATH_STAT_MTIME_NS = 4,
    F_PATH_STAT_LINK_TARGET = 5,
};
enum hyper_field_owner_request {
    F_OWNER_REQUEST_CONTAINER = 1,
    F_OWNER_REQUEST_NAME = 2,
    F_OWNER_REQUEST_GROUP = 3,
};
enum hyper_field_owner {
    F_OWNER_ID = 1,
};
enum hyper_field_change {
    F_CHANGE_PATH = 1,
    F_CHANGE_KIND = 2,
};
enum hyper_field_changes {
    F_CHANGES_CHANGES = 1,
};
enum hyper_field_export_request {
    F_EXPORT_REQUEST_CONTAINER = 1,
    F_EXPORT_REQUEST_STREAM = 2,
    F_EXPORT_REQUEST_DIFF = 3,
    F_EXPORT_REQUEST_MORE = 4,
};
enum hyper_field_dns {
    F_DNS_CONTAINER = 1,
    F_DNS_QUERY = 2,
    F_DNS_MESSAGE = 3,
    F_DNS_TCP = 4,
};
enum hyper_field_file_write {
    F_FILE_WRITE_CONTAINER = 1,
    F_FILE_WRITE_PATH = 2,
    F_FILE_WRITE_CONTENT = 3,
};
enum hyper_field_socket_open {
    F_SOCKET_OPEN_CONTAINER = 1,
    F_SOCKET_OPEN_SOURCE = 2,
    F_SOCKET_OPEN_CONNECTION = 3,
};
enum hyper_field_socket_answer {
    F_SOCKET_ANSWER_CONNECTION = 1,
    F_SOCKET_ANSWER_OUTPUT = 2,
    F_SOCKET_ANSWER_INPUT = 3,
    F_SOCKET_ANSWER_ERROR = 4,
};
#endif
