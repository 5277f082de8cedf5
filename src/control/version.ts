/** Version of this package (a test holds it against package.json). */
export const PACKAGE_VERSION = '0.1.0';

/** The QEMU whose QMP and migration protocol vmferry follows; managers choose what to ask for by it. */
export const QEMU_VERSION = { micro: 0, minor: 1, major: 11 } as const;

export const VERSION_INFO = { qemu: QEMU_VERSION, package: `vmferry ${PACKAGE_VERSION}` } as const;
