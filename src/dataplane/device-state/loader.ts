/** Loading in the receiving threads: whoever completes a run of a device's buffers loads it. */

/** One device's, in one receiving thread. What it works on is in shared memory or behind a descriptor: any thread may load the next buffer. */
export interface StateLoader {
  /**
   * The next bytes of the device's state, in order, cut as the source cut them; of one device never two calls at a time. Returns when they are
   * loaded. Throws what ends the migration.
   */
  load(bytes: Buffer): void;
}

/** Where a thread finds the loader: it imports `module` and calls its `openStateLoader` with `data`, which can be cloned. */
export interface StateLoaderModule {
  readonly module: string;
  readonly data: unknown;
}

export type OpenStateLoader = (data: unknown) => StateLoader;

/** Throws if the module cannot be imported or has no such function. */
export async function openLoader({ module, data }: StateLoaderModule): Promise<StateLoader> {
  const { openStateLoader } = (await import(module)) as { openStateLoader: OpenStateLoader };
  return openStateLoader(data);
}
