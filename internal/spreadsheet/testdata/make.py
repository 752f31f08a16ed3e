"""Makes xlwt.xls: Debian's python3-xlwt 1.3.0, python3 make.py."""
import xlwt

book = xlwt.Workbook(encoding="cp1251")
sheet = book.add_sheet("Пользователи")
rows = [
    ["Phone", "User_Groups", "Комментарий"],
    [79991234567, "client,driver", "Иванов Пётр"],
    ["+7 999 123-45-68", "client", "naïve"],
    [],
    [89991234569, xlwt.Formula('B2&""'), 12.5],
    ["79991234570", "driver", True],
    [7.999123e13, "client", xlwt.Formula("NA()")],
]
for y, row in enumerate(rows):
    for x, value in enumerate(row):
        sheet.write(y, x, value)
for y in range(20, 24):  # RK in a row become MULRK; blanks become MULBLANK
    for x, value in enumerate([y, y * 1.25, -y]):
        sheet.write(y, x, value)
many = book.add_sheet("many")
for y in range(1200):
    many.write(y, 0, ("группа %d" if y % 3 else "a group called %d") % y)
book.save("xlwt.xls")
