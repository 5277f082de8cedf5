/**
 * Bounds on what a peer may announce. Each is far above anything QEMU sends and is checked before memory is taken; those of
 * elements that are kept whole until complete can be raised by options (StreamParser, StreamInput, ReturnPathDecoder).
 */

/** QEMU machine names are shorter than 40 bytes. */
export const MACHINE_TYPE_BYTES_MAX = 255;
/** Names in configuration/capabilities; QEMU has two that are listed there. */
export const CAPABILITIES_MAX = 64;
/** log2 of the target page size, both ends included. Flags of page records need 10 bits. */
export const TARGET_PAGE_BITS_MIN = 10;
export const TARGET_PAGE_BITS_MAX = 16;
/** Sections in one stream: some per vCPU, one to three per device. */
export const SECTIONS_MAX = 65_536;
/** RAM blocks in one stream: memory backends, ROMs, device memories. */
export const RAM_BLOCKS_MAX = 4096;
/** Page records decoded before the consumer is given a `ram-batch`, so that it can drain (16 MiB of 4 KiB pages). */
export const RAM_BATCH_RECORDS_MAX = 4096;
/** Body of a device section, bytes; the largest known are framebuffers of virtio-gpu (256 MiB by its default limit). */
export const DEVICE_BODY_BYTES_MAX = 512 * 1024 * 1024;
/** Configuration of a VFIO device, bytes: 4 KiB of config space and an MSI-X table of 32 KiB at most. */
export const VFIO_CONFIG_BYTES_MAX = 1024 * 1024;
/** A package of postcopy that is kept whole, bytes: all devices of a machine, some 100 KB without large framebuffers. */
export const PACKAGE_BYTES_MAX = DEVICE_BODY_BYTES_MAX;
/** Text of VMDESC, bytes; 120 KB for 40 devices, grows with vCPUs. */
export const DESCRIPTION_BYTES_MAX = 64 * 1024 * 1024;
/** Payload of a return path message, bytes (QEMU's own bound). */
export const RETURN_PATH_PAYLOAD_BYTES_MAX = 512;
/** Bitmap after a RECV_BITMAP message, bytes: a block of 4 TiB. */
export const RECV_BITMAP_BYTES_MAX = 128 * 1024 * 1024;
