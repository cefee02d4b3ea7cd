"""Every bound of the protocol in one place, each with its reason. All sizes are bytes."""

# --- record ---------------------------------------------------------------------------------
RECORD_HEADER = 4  # type 8, length 24
AEAD_TAG = 16
RECORD_MAX = 65_535  # ciphertext with tag on the control connection; one Noise message
RECORD_PLAIN_MAX = RECORD_MAX - AEAD_TAG
REKEY_RECORDS = 1 << 16  # records per direction under one key; far below the GCM bound

# --- frame ----------------------------------------------------------------------------------
FRAME_HEADER = 12  # >BBHII
META_MAX = 8 * 1024  # a message is a header, not a document; long things are rows
META_DEPTH = 8  # deeper nesting is an attack on a recursive decoder
META_KEYS = 64  # keys in one map
DATA_OFFSET = 8  # DATA payloads begin with their absolute u64 offset
BULK_DATA_MAX = 61_440  # bytes of one bulk DATA frame; leaves room for an urgent frame beside it
STREAM_ID_MAX = (1 << 32) - 1

# --- handshake, before anything is known of the peer ----------------------------------------
PREFACE = 12
PREFACE_TIMEOUT_S = 2.0
HANDSHAKE_TIMEOUT_S = 5.0  # absolute, from accept
HANDSHAKE_RECORDS = 3
HANDSHAKE_RECORD_MAX = 4 * 1024
HALF_OPEN_MAX = 256
HALF_OPEN_PER_SOURCE = 8

# --- flow control ---------------------------------------------------------------------------
STREAM_WINDOW = 1 << 20  # uncompressed bytes per stream; keeps 8 Gbit/s busy at 1 ms
CONNECTION_WINDOW = 16 << 20
STREAMS_MAX = 256  # peer-opened streams alive at once

# --- push -----------------------------------------------------------------------------------
INTERRUPT_MAX = 1024  # whole frame; fits any record beside bulk
INTERRUPT_RATE_PER_S = 50
INTERRUPT_BURST = 64
RESULT_INLINE_MAX = 48 * 1024  # larger results travel by reference

# --- compression ----------------------------------------------------------------------------
COMPRESS_MIN = 1024  # smaller payloads do not pay for a zstd frame header
INFLATED_MAX = 1 << 20  # uncompressed size of one frame's payload
ZSTD_WINDOW_MAX = 8 << 20

# --- liveness -------------------------------------------------------------------------------
PING_AFTER_S = 5.0
DEAD_AFTER_S = 15.0

# --- rows and batches -----------------------------------------------------------------------
ROW_HEADER = 6  # >HI
ROW_PAYLOAD_MAX = 1 << 20  # larger things travel as blobs or objects
SUBMIT_BATCH = 256
SUBMIT_BYTES = 32 << 20  # one submission, payloads included; the node holds it in memory
JOB_PAYLOAD_INLINE = 1 << 20  # larger job payloads are sent by PutBlob first
BLOB_MAX = 1 << 32  # a code bundle or a job's payload
CANCEL_IDS = 32  # ids in one interrupt; 32 * 16 bytes fit in INTERRUPT_MAX

# --- identities -----------------------------------------------------------------------------
CLOCK_TOLERANCE_S = 300  # certificates and tickets only
TICKET_MAX = 2048
CERTIFICATE_MAX = 256
ADDRESS_MAX = 1024
TICKET_LIFE_S = 7 * 86_400  # so that jobs survive their manager
INVITATION_BYTES = 16  # 128 bits

# --- objects --------------------------------------------------------------------------------
PATH_MAX = 1024
CONTAINER_NAME_MAX = 255
MEMBERS_MAX = 16
COPIES_MAX = 16
OBJECT_MAX = 1 << 48
TAGS_MAX = 16
TAG_MAX = 64
TICKETS_PER_JOB = 4  # containers that one job may touch; the largest ticket has 1,619 bytes
ROUTES_PER_JOB = 8
