/**
 * What can be known of one end of a migration before it begins. How it was asked for - over QMP, by the handshake, from a file - is not
 * told; what could not be asked for is absent, and then nothing is concluded from it.
 */
export interface EndFacts {
  readonly program?: ProgramFacts;
  /** RunState of its guest; `inmigrate`: it waits for one. */
  readonly runState?: string;
  /** MigrationStatus; `none` if there never was a migration. */
  readonly migration?: string;
  /** What forbids a migration, in its own words. */
  readonly blocked?: readonly string[];
  /** With its version, as in the stream: pc-q35-10.0. */
  readonly machineType?: string;
  /** Text form; absent also if the machine has none. */
  readonly uuid?: string;
  /** Version of the handshake that it speaks; absent: the two ends shake no hands. */
  readonly handshake?: number;
  /** Those it knows and could use here, and whether they are on. */
  readonly capabilities?: Readonly<Record<string, boolean>>;
  /** Those it knows. */
  readonly parameters?: Readonly<Record<string, unknown>>;
  /** Of its machine type: values of compat properties, as on a command line. */
  readonly dialect?: Readonly<Record<string, string>>;
  /** Settings that it was given; all others are as by default. */
  readonly given?: readonly string[];
  /** Of parameters that can be settled, what it takes if the other end has given it: the largest number, or all values. */
  readonly takes?: Readonly<Record<string, number | readonly string[]>>;
  readonly ram?: readonly BlockFacts[];
  readonly cpus?: CpuFacts;
  /** Number of plugged devices by type: virtio-net-pci ... */
  readonly devices?: Readonly<Record<string, number>>;
  /** Functions by address (`00:04.0`), with vendor and device id (`1af4:1005`). */
  readonly pci?: Readonly<Record<string, string>>;
  readonly vfio?: readonly VfioFacts[];
  /** Source: what its devices take to stop, ms. */
  readonly stopMs?: number;
  /** Destination: what all devices take when their data is there. */
  readonly load?: LoadFacts;
  /** Destination whose RAM is memory: bytes that its host has to give. */
  readonly freeMemory?: number;
  /** Destination whose RAM is a file: bytes that the file system has left. */
  readonly freeDisk?: number;
  /** What it sends at most, and takes. */
  readonly limits?: LimitFacts;
}

export interface LoadFacts {
  readonly ms: number;
  /** How fast the slowest device takes its data; absent: as fast as it comes, or not known. */
  readonly bytesPerMs?: number;
}

/** Bytes, and a number. */
export interface LimitFacts {
  /** Pages of a multifd packet. */
  readonly packetBytes: number;
  /** Buffer of device state on such a channel. */
  readonly bufferBytes: number;
  /** Of RAM. */
  readonly blocks: number;
}

export interface ProgramFacts {
  /** `QEMU 10.0.2`, `vmferry 0.1.0`. */
  readonly name: string;
  /** The QEMU version whose protocol it speaks, major.minor. */
  readonly version: string;
}

export interface BlockFacts {
  readonly name: string;
  /** Bytes in use: what the stream announces. */
  readonly used: number;
  /** Bytes it can grow to. */
  readonly max: number;
  /** Bytes of a host page. */
  readonly pageSize: number;
}

export interface CpuFacts {
  readonly count: number;
  /** QOM type of the first. */
  readonly model?: string;
  /** What runs them: kvm, tcg. */
  readonly accelerator?: string;
}

/** A device whose state goes by the VFIO protocol. */
export interface VfioFacts {
  readonly name: string;
  /** Of its section in the stream. */
  readonly section: string;
  /** Of that name; absent: 0. */
  readonly instance?: number;
  /** Part of its state is read while it runs. */
  readonly precopy: boolean;
  readonly p2p: boolean;
  /** Some of it prepares the device at the destination; absent: not known. */
  readonly initialData?: boolean;
  /** It can be asked to stop within a given time. */
  readonly deadlines?: boolean;
  /** Bytes that it would save now. */
  readonly stateBytes?: number;
  /** To load it here, it alone. */
  readonly load?: LoadFacts;
}
