import { FerryError } from '../../base/index.ts';

/** Where in which stream: `offset` is that of the byte that does not fit, `path` names section, description and field. */
export interface VmstatePlace {
  readonly stream: string;
  readonly offset: number;
  readonly path: string;
}

export type VmstateFault =
  | (VmstatePlace & { readonly code: 'VMSTATE_TRUNCATED' })
  | (VmstatePlace & { readonly code: 'VMSTATE_VERSION_UNSUPPORTED'; readonly expected: number; readonly found: number })
  | (VmstatePlace & { readonly code: 'VMSTATE_UNEXPECTED_VALUE'; readonly expected: string; readonly found: string })
  | (VmstatePlace & { readonly code: 'VMSTATE_SUBSECTION_UNKNOWN'; readonly found: string })
  | (VmstatePlace & { readonly code: 'VMSTATE_SUBSECTION_REPEATED'; readonly found: string })
  | (VmstatePlace & { readonly code: 'VMSTATE_TRAILING_BYTES'; readonly count: number });

export function vmstateError(fault: VmstateFault, what: string, cause?: unknown): FerryError<VmstateFault> {
  return new FerryError(fault, `${fault.stream}: ${fault.path} at offset ${fault.offset}: ${what}`, cause);
}
