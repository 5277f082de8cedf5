/** What two vmferrys say to each other by numbers that mean nothing to a QEMU. */

/**
 * Value of SHUT by which a vmferry destination says: failed, and the guest was never started here. Any other value but 0 only says
 * that something failed (QEMU sends 1, and may have started its guest by then: qemu-wire fact 5).
 */
export const SHUT_NEVER_STARTED = 0x0fe2_2f00;
/**
 * The first PING of a vmferry source whose machine has devices. A vmferry destination answers with PONG_VMFERRY in front of the PONG that is due, and
 * with the latter the source knows whom it talks to. Nobody else minds: PINGs have any value, and QEMU's destination says back what it hears.
 */
export const PING_HELLO = 0x0fe2_2f02;
export const PONG_VMFERRY = 0x0fe2_2f03;
