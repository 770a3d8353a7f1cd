/** The roles, as people choose them. */
export const roles = [["viewer", "Viewer: looks"], ["operator", "Operator: steers rollouts, groups, pins, locks"], ["publisher", "Publisher: uploads releases, sets channels"], ["admin", "Admin: everything"]] as const;
