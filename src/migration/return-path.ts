/**
 * Value of SHUT by which a vmferry destination says: failed, and the guest was never started here. Any other value but 0 only says
 * that something failed (QEMU sends 1, and may have started its guest by then: qemu-wire fact 5).
 */
export const SHUT_NEVER_STARTED = 0x0fe2_2f00;
